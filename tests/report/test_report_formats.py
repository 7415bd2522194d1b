"""Markdown, CSV, JSON and HTML from the same run, and how a format is chosen."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from goldens import assert_golden
from rich.console import Console
from sample_run import bare_run, large_run, sample_run

from layerprof.errors import RequestError
from layerprof.records import Run
from layerprof.report import kinds, write
from layerprof.runs import store


def rendered(run: Run, name: str) -> str:
    """Return a run in a format."""
    out = io.StringIO()
    kinds.run().renderer(name)(run, out)
    return out.getvalue()


def console(*, tty: bool = False) -> Console:
    """Return a console that writes to memory."""
    return Console(file=io.StringIO(), force_terminal=tty, color_system=None, width=100)


# --- choosing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", write.BUILT_IN)
@pytest.mark.parametrize("run", [sample_run(), bare_run(), sample_run(layers=())], ids=["full", "bare", "no layers"])
def test_every_format_takes_every_run(name: str, run: Run) -> None:
    """No format fails on a run that measured little."""
    assert rendered(run, name)


def test_the_suffix_picks_the_format(tmp_path: Path) -> None:
    """`-o report.md` is Markdown, `.HTML` is HTML, `.csv` is the layer table."""
    for name, start in (("a.md", "# demo"), ("b.HTML", "<!DOCTYPE html>"), ("c.csv", "name,tower"), ("d.json", "{")):
        written = write.write(sample_run(), kinds.run(), "terminal", tmp_path / "new" / name, console())
        assert written == tmp_path / "new" / name
        assert written.read_text(encoding="utf-8").startswith(start)


def test_a_named_format_beats_the_suffix(tmp_path: Path) -> None:
    """`--format csv -o layers.txt` is CSV."""
    write.write(sample_run(), kinds.run(), "csv", tmp_path / "layers.txt", console())
    assert (tmp_path / "layers.txt").read_text().startswith("name,tower")


def test_without_a_file_the_report_goes_to_the_console() -> None:
    """Terminal by default, any other text format when asked for."""
    screen = console()
    assert write.write(sample_run(), kinds.run(), "terminal", None, screen) is None
    assert "Ledger" in screen.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    screen = console()
    write.write(sample_run(), kinds.run(), "json", None, screen)
    assert json.loads(screen.file.getvalue())["format"] == 5  # type: ignore[attr-defined]  # it is a StringIO


@pytest.mark.parametrize(
    ("name", "output", "said"),
    [
        ("htlm", None, "Did you mean 'html'"),
        ("pdf", None, "Choose one of"),
        ("terminal", "report.pdf", "endings"),
        ("terminal", "report", "endings"),
        ("html", None, "-o report.html"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_remedy(name: str, output: str | None, said: str) -> None:
    """Unknown formats, telling-nothing file names, and a page on a terminal."""
    with pytest.raises(RequestError) as caught:
        write.write(sample_run(), kinds.run(), name, output, console(tty=True))
    assert said in caught.value.remedy


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder in the file's place ends in one message, and leaves no part file."""
    (tmp_path / "out.md").mkdir()
    with pytest.raises(RequestError, match="cannot be written"):
        write.write(sample_run(), kinds.run(), "terminal", tmp_path / "out.md", console())
    assert [path.name for path in tmp_path.iterdir()] == ["out.md"]


def test_reports_need_no_torch(tmp_path: Path) -> None:
    """Showing a stored run works, and is quick, where torch is not even imported."""
    store.save(sample_run(), tmp_path)
    code = (
        "import io, sys\n"
        "from layerprof.report import kinds\n"
        "from layerprof.runs import store\n"
        f"run = store.load({str(tmp_path)!r})\n"
        "for render in kinds.run().renderers.values():\n"
        "    render(run, io.StringIO())\n"
        "print('torch' in sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


# --- each format ------------------------------------------------------------------------------------------------


def test_markdown_looks_as_it_did() -> None:
    """The whole document."""
    assert_golden("report.md", rendered(sample_run(), "markdown"))


def test_markdown_tables_survive_any_text() -> None:
    """Pipes, tags and line breaks in names and warnings break no table and make no markup."""
    run = sample_run()
    named = run.layers[1].model_copy(update={"name": "a|b\n<b>*c*</b>"})
    text = rendered(sample_run(layers=(named,), warnings=("x\n# y",)), "markdown")
    lines = [line for line in text.splitlines() if "&lt;b&gt;\\*c\\*&lt;/b&gt;" in line]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [8, 12]
    assert "\n# y" not in text


def test_csv_is_the_stored_layer_table(tmp_path: Path) -> None:
    """The report and layers.csv are the same text, with one column a field."""
    store.save(sample_run(), tmp_path)
    text = rendered(sample_run(), "csv")
    assert (tmp_path / "layers.csv").read_text() == text
    decode = [row for row in csv.DictReader(io.StringIO(text)) if row["phase"] == "decode" and row["index"] == "1"]
    assert (decode[0]["span_total_s"], decode[0]["flops"], decode[0]["energy_j"]) == ("0.06", "1000000000", "4.0")


def test_json_is_run_json(tmp_path: Path) -> None:
    """The JSON report can be loaded as a run."""
    (tmp_path / "run.json").write_text(rendered(large_run(), "json"))
    assert store.load(tmp_path) == large_run()


class _Page(HTMLParser):
    """Collects what a page would load, and its data block."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.policy = ""
        self.data = ""
        self._in_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note addresses that a browser would fetch by itself."""
        given = dict(attrs)
        self.loads += [given[name] or "" for name in ("src", "data", "action") if name in given]
        if tag == "link":
            self.loads.append(given.get("href") or "")
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given.get("content") or ""
        self._in_data = tag == "script" and given.get("type") == "application/json"

    def handle_endtag(self, tag: str) -> None:
        """Leave the data block."""
        self._in_data = False

    def handle_data(self, data: str) -> None:
        """Collect the data block."""
        self.data += data if self._in_data else ""


def test_the_page_is_one_file_that_loads_nothing() -> None:
    """No element fetches anything, the page's own policy forbids it, and it is below 6 MB."""
    text = rendered(large_run(), "html")
    page = _Page()
    page.feed(text)
    assert page.loads == ["data:,"]
    assert "default-src 'none'" in page.policy
    assert len(text.encode()) < 6_000_000
    assert len(json.loads(page.data)["rows"]) == len(large_run().layers)


def test_data_cannot_end_its_script() -> None:
    """A name with a closing script tag stays inside the data block."""
    page = _Page()
    page.feed(rendered(sample_run(model={"name": "</script><script>alert(1)//"}), "html"))
    assert json.loads(page.data)["title"].startswith("</script><script>")


def test_markdown_holds_nothing_that_a_terminal_obeys() -> None:
    """A report is read with `cat`, too: escape sequences in a warning or a name arrive as plain signs."""
    text = rendered(sample_run(warnings=("\x1b[2Jgone\x07 kept",), model={"name": "m\x1b[31m"}), "markdown")
    assert "kept" in text
    assert not {"\x1b", "\x07"} & set(text)
