"""Make the pictures of the documentation from a run, and a second one beside it.

    python docs/images/make.py RUN [OTHER]

RUN is a folder of `layerprof profile`, OTHER one of the same model. Needs Chromium. The two outside scripts of
torch-tb-profiler's pages are answered by the stand-ins of tests/browser.
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console

from layerprof import load_run
from layerprof.report.formats import html, terminal

HERE = Path(__file__).parent
STAND_INS = HERE.parents[1] / "tests" / "browser"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
WIDTH = 1280


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.route("**/*", _answer)
        _terminal(page, options.run, Path(folder))
        _report(page, options.run, Path(folder))
        logs = Path(folder) / "logs"
        shutil.copytree(options.run, logs / "run")
        if options.other:
            shutil.copytree(options.other, logs / "other")
        with _tensorboard(logs) as address:
            _layers(page, address)
            _profiler(page, address)
        browser.close()


def _terminal(page: Any, run: Path, folder: Path) -> None:
    """Draw the summary as a terminal of 104 columns shows it, down to the hot spots."""
    console = Console(record=True, width=104, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    terminal.render(load_run(run), console)
    svg = folder / "terminal.svg"
    svg.write_text(console.export_svg(title="layerprof profile --layers all --dataset textvqa"), encoding="utf-8")
    page.goto(svg.as_uri())
    width, height = (page.evaluate(f"document.documentElement.viewBox.baseVal.{side}") for side in ("width", "height"))
    around = folder / "terminal.html"
    around.write_text(f'<body style="margin: 0"><img src="{svg.name}" width="{WIDTH}"></body>', encoding="utf-8")
    page.goto(around.as_uri())
    _save(page, "terminal", height=min(1240, round(WIDTH * height / width)))


def _report(page: Any, run: Path, folder: Path) -> None:
    file = folder / "report.html"
    with file.open("w", encoding="utf-8") as out:
        html.render(load_run(run), out)
    page.goto(file.as_uri())
    page.wait_for_selector("#heat-plot .hm")
    page.wait_for_timeout(1000)
    _save(page, "report", height=1960)


def _layers(page: Any, address: str) -> None:
    """Draw our tab: one run, and two side by side."""
    page.goto(f"{address}#layerprof")
    frame = page.frame_locator("iframe")
    frame.locator("#first").select_option("run")
    frame.locator("article .figures tr.total").last.wait_for()
    page.wait_for_timeout(2000)
    _save(page, "layers-tab", height=1720)
    if frame.locator("#second option[value=other]").count():
        frame.locator("#second").select_option("other")
        frame.locator("article:nth-child(2) .figures tr.total").last.wait_for()
        frame.locator("#quantity").select_option("median_s")
        heading = frame.locator("h2", has_text="Layer by layer")
        heading.wait_for()
        page.set_viewport_size({"width": WIDTH, "height": 900})
        page.wait_for_timeout(2000)
        heading.scroll_into_view_if_needed()
        _save(page, "layers-two", height=900)


def _profiler(page: Any, address: str) -> None:
    """Draw torch-tb-profiler's Module and Trace views."""
    for view, wait_ms in (("Module", 2000), ("Trace", 9000)):
        page.goto("about:blank")
        page.goto(f"{address}#pytorch_profiler")
        frame = page.frame_locator("iframe")
        frame.get_by_role("button", name="Overview", exact=True).click(timeout=120_000)
        frame.get_by_role("option", name=view, exact=True).click()
        page.wait_for_timeout(wait_ms)
        _save(page, f"profiler-{view.lower()}", height=720)


def _save(page: Any, name: str, height: int) -> None:
    """Save the top of the page with few colours: a picture of flat areas and text gets small."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.wait_for_timeout(500)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    target = HERE / f"{name}.png"
    shot.quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size / 1e3:.0f} kB")


def _answer(route: Any) -> None:
    url = route.request.url
    stand_in = "charts_stub.js" if "gstatic.com/charts" in url else "webcomponents_stub.js"
    if url.startswith(("http://localhost", "file:", "data:", "blob:", "about:")):
        route.continue_()
    elif "gstatic.com/charts" in url or "webcomponents" in url:
        route.fulfill(body=(STAND_INS / stand_in).read_text(), content_type="text/javascript")
    else:
        route.abort()


@contextmanager
def _tensorboard(logs: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", str(port)]
    with subprocess.Popen([*command, "--load_fast=false"], stderr=subprocess.DEVNULL) as board:
        try:
            yield _answering(f"http://localhost:{port}/")
        finally:
            board.terminate()


def _answering(url: str) -> str:
    for _ in range(600):
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(0.1)
        else:
            return url
    raise SystemExit("TensorBoard does not answer")


if __name__ == "__main__":
    main()
