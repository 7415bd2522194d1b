"""torch-tb-profiler's own pages on a trace that layerprof rewrote, in a real TensorBoard and a real browser.

The pages load two scripts from the internet; local stand-ins answer for them, and no other request leaves the machine.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import traces_synthetic as synthetic

from layerprof.trace.file import write_chrome
from layerprof.trace.for_tensorboard import rewrite_for_tensorboard

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, FrameLocator, Page, Route

pytestmark = pytest.mark.browser

PATIENCE_MS = 120_000
STAND_INS = {
    "https://www.gstatic.com/charts/loader.js": "charts_stub.js",
    "https://cdnjs.cloudflare.com/ajax/libs/webcomponentsjs/0.7.24/webcomponents.min.js": "webcomponents_stub.js",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start TensorBoard on a trace of known times; yield its address."""
    folder = tmp_path_factory.mktemp("run")
    recorded = write_chrome(synthetic.SCENARIOS["nested_ranges"]().events, folder / "batch0.json")
    (folder / "trace").mkdir()
    rewrite_for_tensorboard(recorded, folder / "trace", "layers.1")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    # A process of its own: the plugin starts another one, which would import this file again.
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    with subprocess.Popen([*command, "--load_fast=false"], stderr=subprocess.DEVNULL) as board:
        try:
            yield _answering(f"http://localhost:{port}/", board)
        finally:
            board.terminate()


def _answering(url: str, board: subprocess.Popen[bytes]) -> str:
    for _ in range(600):
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            assert board.poll() is None, "TensorBoard ended by itself"
            time.sleep(0.1)
        else:
            return url
    raise AssertionError("TensorBoard does not answer")


class Opened:
    """The plugin's page, the outside addresses that it asked for, and what it complained of."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.asked: list[str] = []
        self.errors: list[str] = []
        self._own = address
        page.route("**/*", self._answer)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{address}#pytorch_profiler", wait_until="commit")
        self.frame: FrameLocator = page.frame_locator("iframe")

    def _answer(self, route: Route) -> None:
        url = route.request.url
        if url.startswith((self._own, "data:", "blob:")):
            route.continue_()
            return
        self.asked.append(url)
        if url in STAND_INS:
            script = Path(__file__).with_name(STAND_INS[url]).read_text()
            route.fulfill(body=script, content_type="text/javascript")
        else:
            route.abort()

    def choose(self, view: str) -> None:
        """Pick one of the plugin's views."""
        self.frame.get_by_role("button", name="Overview", exact=True).or_(
            self.frame.get_by_role("button", name="Operator", exact=True)
        ).first.click()
        self.frame.get_by_role("option", name=view, exact=True).click()


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Opened]:
    """Open the plugin's tab."""
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    yield Opened(context.new_page(), address)
    context.close()


def test_the_module_view_lists_the_layers_with_their_device_time(opened: Opened) -> None:
    """18 us launched in the layer itself and 18 in its mlp: 36 in all, under the real names."""
    opened.choose("Module")
    rows = opened.frame.locator(".ant-table-tbody tr")
    rows.first.wait_for()
    cells = rows.first.locator("td").all_inner_texts()
    assert cells[0] == "model.layers.0"
    assert [float(cell) for cell in cells[-2:]] == [36, 18]
    rows.first.locator("button.ant-table-row-expand-icon").click()
    inner = rows.nth(1).locator("td").all_inner_texts()
    assert inner[0] == "model.layers.0.mlp"
    assert [float(cell) for cell in inner[-2:]] == [18, 18]
    assert set(opened.asked) <= set(STAND_INS)
    assert opened.errors == []


def test_the_trace_view_draws_the_layers(opened: Opened) -> None:
    """The viewer's model holds every layer call by name, and its canvas shows more than a background."""
    opened.choose("Trace")
    viewer = _viewer(opened)
    titles = viewer.evaluate(TITLES)
    layers = [title for title in titles if title and title.startswith("nn.Module: ")]
    assert sorted(layers) == ["nn.Module: model.layers.0", "nn.Module: model.layers.0.mlp"]
    assert viewer.evaluate(COLOURS) > 5
    assert set(opened.asked) == set(STAND_INS)
    assert opened.errors == []


TITLES = "[...document.getElementById('trace-viewer').model.getDescendantEvents()].map(event => event.title)"

COLOURS = """() => {
  const roots = [document], found = [];
  while (roots.length) for (const node of roots.pop().querySelectorAll("*")) {
    if (node.shadowRoot) roots.push(node.shadowRoot);
    if (node.localName === "canvas" && node.width * node.height > 1000) found.push(node);
  }
  const seen = new Set();
  for (const canvas of found) {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    for (let at = 0; at < pixels.length; at += 4) if (pixels[at + 3]) seen.add(pixels.slice(at, at + 3).join());
  }
  return seen.size;
}"""
"""How many colours stand on the page's canvases, those in shadow trees too."""


READY = "!!document.getElementById('trace-viewer')?.model"


def _viewer(opened: Opened) -> Frame:
    """Return the frame of the trace viewer, once it has drawn a model."""
    for _ in range(PATIENCE_MS // 500):
        for frame in opened.page.frames:
            if "trace_embedding" in frame.url and frame.evaluate(READY):
                opened.page.wait_for_timeout(1000)
                return frame
        opened.page.wait_for_timeout(500)
    raise AssertionError("the trace viewer did not load")
