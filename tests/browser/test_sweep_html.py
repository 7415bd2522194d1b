"""The page of a sweep in a real browser with the network off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sample_sweep import NASTY, sample_sweep

from layerprof.report.sweep import html, overview

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

PLOTS = ("trade-plot", "share-plot", "heat-plot", "roof-plot")


class Opened:
    """The page, what it asked for, and what it complained of."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)
        page.on("dialog", self._asked)
        page.goto(file.as_uri())
        page.wait_for_selector("#share-plot .plot-container")

    def _asked(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _heard(self, line: Any) -> None:
        if line.type in ("error", "warning"):
            self.complaints.append(line.text)


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Return the sample sweep's page, opened offline."""
    file = tmp_path / "sweep.html"
    with file.open("w", encoding="utf-8") as out:
        html.render(overview.load(sample_sweep(tmp_path / "sweep")), out)
    context = browser.new_context(offline=True)
    context.set_default_timeout(180_000)
    yield Opened(context.new_page(), file)
    context.close()


def test_the_page_draws_offline_and_obeys_nothing_from_outside(opened: Opened) -> None:
    """Four plots, no request but the file, nothing in the console; a title with a script in it is only text."""
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert opened.complaints == []
    for name in PLOTS:
        assert opened.page.locator(f"#{name} .plot-container").count() == 1, name
    assert NASTY in opened.page.locator("h1").inner_text()


def test_the_earlier_report_stands_beside_each_cell(opened: Opened) -> None:
    """The row of batch size 4 has our 1.50 over its base beside the report's WER of 14.3 and its 1.50."""
    row = opened.page.locator("#tables table").first.locator("tbody tr").nth(1)
    assert row.locator("td").first.inner_text() == "4"
    assert "1.50 [1.50, 1.50]" in [cell.inner_text() for cell in row.locator("td").all()]
    assert row.locator("td.earlier").first.inner_text() == "14.3"
    heading = opened.page.locator("#tables table").first.locator("tr.groups")
    assert "earlier report" in heading.inner_text()


def test_cells_without_figures_have_their_reason(opened: Opened) -> None:
    """The crashed and the skipped cell are listed; the guard that struck is shown."""
    problems = opened.page.locator("#problems").inner_text()
    assert "crashed" in problems
    assert "no CUDA device" in problems
    assert "answers depend on the batch" in opened.page.locator("#guards").inner_text()


def test_shares_of_every_cell_add_up(opened: Opened) -> None:
    """The stacked bars of each cell are 100 % of its time, whatever was joined as small."""
    bars = opened.page.evaluate("document.getElementById('share-plot').data.map(trace => trace.y)")
    sums = [sum(value or 0.0 for value in column) for column in zip(*bars, strict=True)]
    assert sums == [pytest.approx(1.0)] * 2


def test_controls_redraw(opened: Opened) -> None:
    """Another quantity across changes the axis; another table changes the cells of the heat map."""
    page = opened.page
    page.select_option("#trade-x", "flops")
    assert "FLOPs of a sample" in (page.locator("#trade-plot .xtitle").text_content() or "")
    page.select_option("#heat-table", "devices")
    assert page.evaluate("document.getElementById('heat-plot').data[0].y") == ["device cpu"]
    assert opened.complaints == []
