"""The HTML report in a real browser with the network off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from missing_run import missing_run
from sample_run import bare_run, large_run, sample_run
from whole_request import memory_run, pruned_run, request_run

from layerprof.records import Run
from layerprof.report.formats import html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

PATIENCE_MS = 180_000


@dataclass
class Opened:
    """A page with what it asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def value(self, script: str) -> Any:
        """Evaluate a script in the page."""
        return self.page.evaluate(script)


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Callable[[Run], Opened]]:
    """Return a function that writes a run's page and opens it offline."""
    context = browser.new_context(offline=True)
    context.set_default_timeout(PATIENCE_MS)

    def show(run: Run) -> Opened:
        file = tmp_path / "report.html"
        with file.open("w", encoding="utf-8") as out:
            html.render(run, out)
        result = Opened(context.new_page())
        result.page.on("request", lambda request: result.requests.append(request.url))
        result.page.on("pageerror", lambda error: result.complaints.append(str(error)))
        result.page.on(
            "console", lambda line: result.complaints.append(line.text) if line.type in ("error", "warning") else None
        )
        result.page.goto(file.as_uri())
        result.page.wait_for_selector("#parts-plot .plot-container, #layers")
        return result

    yield show
    context.close()


@pytest.mark.parametrize("run", [sample_run(), bare_run(), large_run()], ids=["full", "bare", "large"])
def test_the_page_draws_offline_without_a_request_or_a_complaint(run: Run, opened: Callable[[Run], Opened]) -> None:
    """One file, one request, which is the file itself; nothing in the console."""
    shown = opened(run)
    assert [url for url in shown.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in shown.requests if url.startswith("file:")]) == 1
    assert shown.complaints == []
    assert shown.page.locator("#heat-plot .hm").count() == 3


def test_figures_and_books_are_on_the_page(opened: Callable[[Run], Opened]) -> None:
    """The end-to-end cards and the ledger show the hand-chosen figures."""
    page = opened(sample_run()).page
    cards = page.locator(".card").all_inner_texts()
    assert any("latency per batch" in card and "125 ms" in card for card in cards)
    assert page.locator("#ledger tr.residual td").all_inner_texts()[:3] == ["residual", "0", "0"]
    assert (
        "energy, attributed (nvml_counter): open, residual 5.0 % of the total" in page.locator("#ledger").inner_text()
    )


def test_the_table_sorts_and_filters(opened: Callable[[Run], Opened]) -> None:
    """A click on a heading puts the largest first, a second one the smallest; words filter the rows."""
    page = opened(sample_run()).page
    first = page.locator("#layer-table tbody tr").first
    page.locator("#layer-table th[data-key=share]").click()
    assert first.inner_text().split("\t")[:3] == ["model.language_model.layers.1", "language", "decode"]
    page.locator("#layer-table th[data-key=share]").click()
    assert "embed_tokens" in first.inner_text()
    page.locator("#filter").fill("vision block")
    assert page.locator("#layer-table tbody tr").count() == 2
    assert page.locator("#row-count").inner_text() == "2 of 16 rows"


def test_the_whole_request_stands_above_the_layers(opened: Callable[[Run], Opened]) -> None:
    """A bar of its five parts, and a table down to the residual and the total; older runs have neither."""
    shown = opened(request_run())
    shares = shown.value("document.getElementById('request-plot').data.map(trace => [trace.name, trace.x[0]])")
    assert [name for name, _ in shares] == ["read", "process", "copy", "generate", "residual"]
    assert sum(share for _, share in shares) == pytest.approx(1)
    cells = shown.page.locator("#request-table tr.residual td").all_inner_texts()
    assert cells[:3] == ["residual", "9 ms", "1.0 %"]
    assert "Layers of 4 of 12 samples" in shown.page.locator("h2").all_inner_texts()
    assert shown.complaints == []
    assert opened(sample_run()).page.locator("#request-plot").count() == 0


def test_positions_and_memory_are_columns_that_sort(opened: Callable[[Run], Opened]) -> None:
    """The layer that is given most first: 235 positions before 120; then what holds most memory."""
    page = opened(pruned_run()).page
    page.locator("#filter").fill("decoder prefill")
    first = page.locator("#layer-table tbody tr").first
    page.locator("#layer-table th[data-key=tokens_per_call]").click()
    assert first.inner_text().startswith("model.language_model.layers.0")
    assert "\t235\t" in first.inner_text()
    page.locator("#layer-table th[data-key=tokens_per_call]").click()
    assert "\t120\t" in first.inner_text()
    page = opened(memory_run()).page
    page.locator("#layer-table th[data-key=memory_peak_bytes]").click()
    assert "\t30 MB\t2 MB\t1.5 MB\t80 MB" in page.locator("#layer-table tbody tr").first.inner_text()


def test_the_heat_map_shows_the_chosen_quantity(opened: Callable[[Run], Opened]) -> None:
    """Choosing FLOPs redraws the strips with the FLOPs of a call: 2 G in each vision block, 10 G in prefill."""
    shown = opened(sample_run())
    shown.page.locator("#quantity").select_option("flops")
    strips = shown.value("document.getElementById('heat-plot').data.map(trace => trace.z[0])")
    assert strips[0] == [0.05e9, 2e9, 2e9, 0.15e9]
    assert strips[1][1:4] == [10e9, 10e9, 10e9]
    own = shown.value("document.getElementById('heat-plot').data.map(trace => trace.zmax)")
    shown.page.locator("#shade").select_option("all")
    common = shown.value("document.getElementById('heat-plot').data.map(trace => trace.zmax)")
    assert own == [2e9, 10e9, 0.3e9]
    assert common == [10e9, 10e9, 10e9]


def test_decode_growth_and_roof_are_drawn_when_the_run_has_them(opened: Callable[[Run], Opened]) -> None:
    """Stored decode steps and device peaks appear; without them their plots say so or are absent."""
    steps = [{"step": n, "median_s": 0.03 + 0.001 * n, "p95_s": 0.04 + 0.001 * n, "batches": 2} for n in range(1, 6)]
    peaks = {"flops_per_s": 1e13, "bytes_per_s": 2e11}
    shown = opened(sample_run(passes={"decode_by_step": steps}, environment={"peaks": peaks}))
    assert shown.value("document.getElementById('steps-plot').data[0].y") == [step["median_s"] for step in steps]
    assert "roof" in shown.value("document.getElementById('roof-plot').data.map(trace => trace.name)")
    without = opened(bare_run())
    assert without.page.locator("#steps-plot").count() == 0
    assert "this run does not have all three" in without.page.locator("#roof-plot").inner_text()


def test_text_from_outside_is_never_markup(opened: Callable[[Run], Opened]) -> None:
    """Names, warnings and settings that hold tags and scripts are shown letter by letter and run nothing."""
    evil = "</script><img src=x onerror='window.hacked=1'><script>window.hacked=1</script><a href='http://x.y'>z</a>"
    run = sample_run()
    rows = tuple(row.model_copy(update={"name": f"m.{evil}.{n}", "kind": evil}) for n, row in enumerate(run.layers))
    kernels = tuple(row.model_copy(update={"top_kernels": ((evil, 0.1),), "energy_reason": evil}) for row in rows)
    books = run.ledger.model_copy(update={"flops": run.ledger.flops.model_copy(update={"rest": {evil: 4_001_000_000}})})
    shown = opened(
        sample_run(
            layers=kernels, ledger=books, warnings=(evil,), settings={"model": evil, evil: evil}, model={"name": evil}
        )
    )
    shown.page.locator("#quantity").select_option("flops")
    shown.page.mouse.move(400, 600)
    assert shown.value("window.hacked") is None
    assert shown.page.locator("img").count() == 0
    assert shown.page.locator("a[href^='http']").count() == 0
    assert shown.page.locator(".warning").inner_text() == evil
    assert shown.page.title() == f"{evil} on textvqa · layerprof"


def test_flops_that_miss_an_operator_are_marked_in_the_table_and_not_drawn(opened: Callable[[Run], Opened]) -> None:
    """The sign in the cell, the operator in its tip, and no point under the roof."""
    shown = opened(missing_run())
    assert shown.complaints == []
    marked = shown.page.locator("#layer-table td", has_text="≥ 10 GFLOP")
    assert marked.count() == 1
    assert marked.get_attribute("title") == "2 × x::fused_mlp without a formula"
    points = shown.value("document.getElementById('roof-plot').data.flatMap(trace => trace.text || [])")
    assert len([text for text in points if "layers.1" in text]) == 1  # decode, not prefill
    assert shown.page.locator("#ledger").inner_text().count("at least; 2 calls of x::fused_mlp") == 1
