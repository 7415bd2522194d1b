"""What an attributed trace shows where names are odd, counts are one, times are zero, or traces are many."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
import traces_synthetic as synthetic
from attributions import holding, made
from rich.cells import cell_len
from rich.console import Console
from scenario import Scenario

from layerprof.report.attribution import words
from layerprof.report.attribution.documents import to_csv, to_markdown
from layerprof.report.attribution.terminal import render
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import GRAPH, Attribution, Unknown
from layerprof.trace.sums import merged


def screen(result: Attribution, width: int) -> list[str]:
    """Return the lines that a terminal of that width shows, without colours."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console._environ = {}
    render(result, console)
    return out.getvalue().splitlines()


def test_one_is_singular() -> None:
    """Of events that could not be read, of a category that is not known, of launches and graphs."""
    one = holding(
        [made("a", 5, not_recorded=1)],
        skipped=1,
        launches=3,
        launched_not_recorded=1,
        graphs_not_recorded=1,
        captured=1,
        unknown={"npu_op": Unknown(1, 7_000)},
    )
    text = " ".join(words.remarks(one))
    assert "1 event could not be read and is left out." in text
    assert "npu_op (1 event, 7.00 µs)" in text
    assert "1 of 3 launches has no record of what it ran (1 whole CUDA graph, 1 in a)" in text
    assert "1 launch went into a CUDA graph: it runs, and counts, where this is replayed." in text


class TestTable:
    """Names and figures in columns."""

    @pytest.mark.parametrize("width", [60, 80, 120])
    @pytest.mark.parametrize("sign", ["模", "🦜", "e\u0301", "x"])
    def test_names_are_cut_by_the_cells_that_they_take(self, sign: str, width: int) -> None:
        """Signs that take two cells, or none, push no figure out: the line has the 101 µs, its share and its own."""
        lines = screen(holding([made(100 * sign, 101_000, top=((100 * sign, 101_000),))]), width)
        title, line = lines[1:3]
        assert max(map(cell_len, lines)) <= width
        assert title.replace("%", " ").split()[:3] == ["layer", "time", "µs"]
        assert line.replace("█", "").split()[1:4] == ["101", "100", "101"]
        assert "..." in line
        assert "…" not in line

    def test_a_name_that_an_encoding_spells_out_is_cut_as_spelt(self) -> None:
        """In ASCII each sign is an escape of six cells."""
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        render(holding([made(40 * "模", 101_000)]), Console(file=out, width=80, legacy_windows=False))
        out.seek(0)
        line = out.read().splitlines()[2]
        assert len(line) <= 80
        assert line.split()[1:3] == ["101", "100"]

    def test_times_that_are_zero_have_the_unit_of_the_total(self) -> None:
        """All work is in a bucket: its milliseconds are those of the columns, too."""
        title = screen(holding([made("a", 0, graph_ns=27_000_000)], {GRAPH: 27_000_000}), 120)[1]
        assert "time ms" in title
        assert "in graphs ms" in title


class TestHeading:
    """What the figures are of."""

    def test_it_tells_what_was_added_up(self) -> None:
        """Traces, and the GPUs of one."""
        one = holding([made("a", 5)])
        told = {
            "GPU work, 5.00 ns": one,
            "GPU work on 2 GPUs, 5.00 ns": replace(one, devices=2),
            "GPU work of 4 traces, 5.00 ns": replace(one, traces=4),
            "GPU work of 4 traces on up to 2 GPUs each, 5.00 ns": replace(one, traces=4, devices=2),
        }
        for heading, result in told.items():
            assert screen(result, 80)[0].startswith(f"{heading}  1 event")
            assert to_markdown(result).startswith(f"# {heading}\n")

    def test_traces_and_devices_are_counted(self) -> None:
        """Traces of all that is added up, devices of the trace with the most of them."""
        s = Scenario()
        for device in (0, 1, 1):
            s.add("kernel", "gemm", 10, 5, pid=device, tid=7, device=device)
        given = {"a": attribute(s.events), "b": attribute(synthetic.orphans().events)}
        assert [each.devices for each in given.values()] == [2, 1]
        assert (merged(given).traces, merged(given).devices) == (2, 2)
        assert attribute(synthetic.on_a_cpu().events).devices == 1


def test_a_spreadsheet_takes_no_name_for_a_formula() -> None:
    """No control character either; the names of holders are spelt as those of their rows, and numbers stay numbers."""
    odd = ["=1+1", "+a", "-a", "@a", "\t=1", "a\x1b[31m\nb", "-5"]
    rows = [made(name, 5, top=((name, 5),), parent=place) for place, name in enumerate(odd)]
    read = list(csv.DictReader(io.StringIO(to_csv(holding(rows)))))[: len(odd)]
    spelt = ["'=1+1", "'+a", "'-a", "'@a", "' =1", "a [31m b", "-5"]
    for column in ("name", "top_kernel", "parent"):
        assert [row[column] for row in read] == spelt
