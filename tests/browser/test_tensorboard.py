"""Our tab inside a real TensorBoard in a real browser, with no request to anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from sample_run import large_run
from whole_request import request_run

from layerprof.report import log_folder
from layerprof.report.formats import tensorboard
from layerprof.report.plugin import LayersPlugin
from layerprof.runs import store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FrameLocator

pytestmark = pytest.mark.browser

PATIENCE_MS = 180_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Start TensorBoard on two runs and return its address."""
    from tensorboard import default, program

    folder = tmp_path_factory.mktemp("runs")
    for name, run in (("first", request_run()), ("second", large_run())):
        store.save(run, folder / name)
        tensorboard.write(run, folder / name)
    board = program.TensorBoard(plugins=[*default.get_static_plugins(), LayersPlugin])
    arguments = [*log_folder.arguments(folder, 0), "--load_fast=false"]
    board.configure(argv=["tensorboard", *arguments])
    launched: str = board.launch()
    return launched


@pytest.fixture
def tab(browser: Browser, address: str) -> Iterator[tuple[FrameLocator, list[str]]]:
    """Open the tab; yield it with the addresses that the page asked for."""
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}#layerprof", wait_until="commit")
    frame = page.frame_locator("iframe")
    frame.locator("#second").wait_for()
    yield frame, asked
    context.close()


def test_the_tab_shows_a_run_and_a_second_one_beside_it(tab: tuple[FrameLocator, list[str]], address: str) -> None:
    """Cards, request, heat map and ledger of the first run; then two columns and the differences; nothing from outside.

    Titles say of how many samples they are.
    """
    frame, asked = tab
    frame.locator("article .figures tr.total").last.wait_for()
    assert frame.locator("article").count() == 1
    assert "125 ms" in frame.locator(".cards").inner_text()
    request, books = frame.locator("tr.residual").all()
    assert request.locator("td").all_inner_texts()[:3] == ["residual", "9 ms", "1.0 %"]
    assert books.locator("td").all_inner_texts()[:3] == ["residual", "0", "0"]
    assert "Inside generate() of 4 of 12 samples" in frame.locator("h2").all_inner_texts()
    frame.locator("#second").select_option("second")
    frame.locator("article:nth-child(2) .figures tr.total").wait_for()
    frame.locator("#quantity").select_option("median_s")
    heading = frame.locator("h2", has_text="Layer by layer: span, median of a call")
    heading.wait_for()
    changed = frame.locator(".tall tbody tr").first.locator("td").all_inner_texts()
    assert changed == ["model.language_model.layers.1", "decode", "6 ms", "3 ms", "×0.50"]
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
