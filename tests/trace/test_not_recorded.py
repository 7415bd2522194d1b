"""What the profiler lost, from the reading to every report; and the cost of measuring, where noise drowns it."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sample_run import bare_run, sample_run
from shown import shown

from layerprof import registry
from layerprof.books import ledger
from layerprof.books.evidence import Read
from layerprof.measure import answering, passes, remarks
from layerprof.readings import KernelReading, Layer, Lost
from layerprof.records import FORMAT, NotRecorded, Phase, Run
from layerprof.report import facts
from layerprof.report.balance import books, verdict
from layerprof.report.fact import Fact
from layerprof.report.formats import html, markdown, tensorboard, terminal
from layerprof.report.payload import payload
from layerprof.runs import store

LAYER = Layer("layers.0", "language", "decoder_layer", 0)
KEY = ("layers.0", Phase.DECODE)


def reading(lost: Lost) -> KernelReading:
    """Two milliseconds of kernels, half of them in a layer."""
    return KernelReading({KEY: 1e-3}, {KEY: 1}, {"outside layers": 1e-3}, 2e-3, {}, "cuda", 1, lost=lost)


def lossy(may_be: float | None = 0.0005) -> Run:
    """Return the sample run with 7 of 1,000 launches lost, five of them in a layer."""
    run = sample_run()
    lost = NotRecorded(launches=7, of=1000, may_be=may_be, places={"model.visual.patch_embed vision": 5})
    books = run.ledger.model_copy(update={"busy_s": run.ledger.busy_s.model_copy(update={"not_recorded": lost})})
    return sample_run(ledger=books)


class TestBooks:
    """The ledger of kernels where some were lost."""

    def test_they_stand_beside_the_sum_not_in_it(self) -> None:
        """The column closes on what was recorded, and names what was not."""
        column = ledger.close([LAYER], kernels=reading(Lost(3, 100, 2e-5, {KEY: 2}))).busy_s
        assert (column.layers, column.rest, column.residual, column.total) == (1e-3, {"outside layers": 1e-3}, 0, 2e-3)
        assert column.not_recorded == NotRecorded(launches=3, of=100, may_be=2e-5, places={"layers.0 decode": 2})

    def test_where_nothing_was_lost_there_is_nothing_to_say(self) -> None:
        """None, not a row of zeros."""
        assert ledger.close([LAYER], kernels=reading(Lost(0, 100))).busy_s.not_recorded is None


class TestWarning:
    """What a run says of its trace."""

    def test_how_many_and_how_much(self) -> None:
        """Three of a hundred launches, perhaps 0.02 ms, one per cent of the recorded two milliseconds."""
        said = str(remarks.lost(reading(Lost(3, 100, 2e-5))))
        assert "lost 3 of 100 launches (perhaps 0.02 ms, 1.0 % of what was recorded)" in said
        assert "layerprof doctor" in said

    def test_where_it_cannot_be_guessed_it_says_so(self) -> None:
        """No figure is made up."""
        assert "for how long they ran is not known" in str(remarks.lost(reading(Lost(3, 100, None))))

    def test_nothing_lost_no_warning(self) -> None:
        """Nor without a trace."""
        assert remarks.lost(reading(Lost(0, 100))) is None
        assert remarks.lost(None) is None

    def test_a_lossy_trace_warns_in_the_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The trace pass puts it among the run's warnings."""

        class Hook:
            files: dict[str, Path] = {}  # noqa: RUF012  # read only

            def __enter__(self) -> Hook:
                return self

            def __exit__(self, *_: object) -> None:
                return None

            def batch(self, index: int) -> Any:
                return nullcontext()

            def reading(self) -> KernelReading:
                return reading(Lost(3, 100, 2e-5))

        asked = SimpleNamespace(part=range(1), settings=SimpleNamespace(trace_batches=1), layers=(), device="cuda:0")
        subject = SimpleNamespace(model=None)
        session: Any = SimpleNamespace(asked=asked, read=Read(), subject=subject, folder=tmp_path)
        monkeypatch.setattr(registry, "load", lambda _: lambda *_a, **_k: Hook())
        monkeypatch.setattr(answering, "walk", lambda *_a, **_k: None)
        passes.trace_pass(session)
        assert "lost 3 of 100" in session.read.warnings[0]


class TestReports:
    """Every report shows the line, below the total."""

    def test_terminal(self) -> None:
        """The line, its guess marked as one, the verdict and the note."""
        text = shown(lossy(), 120)
        lines = text.splitlines()
        line = next(n for n, line in enumerate(lines) if line.startswith("launched, not recorded"))
        assert lines[line - 1].startswith("total")
        assert "≈0.500" in lines[line]
        assert "busy: balanced as far as recorded" in text
        told = " ".join(text.split())
        assert "7 of 1 000 launches have no record of what they ran, perhaps 500 µs (0.8 % more)" in told
        assert "5 in model.visual.patch_embed vision" in told

    def test_plain_and_ascii(self) -> None:
        """Logs too."""
        lines: list[str] = []
        terminal.render_plain(lossy(), lines.append)
        assert any("balanced as far as recorded" in line for line in lines)
        assert any("7 of 1 000 launches" in line for line in lines)
        assert "~0.500" in shown(lossy(), tty=False)

    def test_markdown_and_page(self) -> None:
        """A row of the table, in both."""
        out = io.StringIO()
        markdown.render(lossy(), out)
        assert "| launched, not recorded |" in out.getvalue()
        page = io.StringIO()
        html.render(lossy(), page)
        assert "launched, not recorded" in page.getvalue()
        cells = payload(lossy())["ledger"]
        place = cells["labels"].index("launched, not recorded")
        assert [column["cells"][place]["shown"] for column in cells["columns"]] == ["", "", "≈0.500", ""]
        assert {column["cells"][place]["value"] for column in cells["columns"]} == {None}

    def test_without_a_guess_there_is_a_question_mark(self) -> None:
        """Never a zero."""
        busy = books(lossy(None))[2]
        assert busy.shown("launched, not recorded") == "?"
        assert "for how long is not known" in busy.notes[-1]

    def test_a_run_that_lost_nothing_has_no_such_line(self) -> None:
        """The word is not there."""
        assert "not recorded" not in shown(sample_run(), 120)
        assert verdict(books(sample_run())[2]) == "balanced exactly"


def cost(**changes: Any) -> Fact:
    """Return the cost of measuring of a run with these totals."""
    run = sample_run()
    run = run.model_copy(update={"totals": run.totals.model_copy(update=changes)})
    return next(fact for fact in facts.end_to_end(run) if fact.label == "cost of measuring")


class TestCostOfMeasuring:
    """A figure with its interval, or that it is not known."""

    def test_a_narrow_interval_lets_the_figure_be_printed(self) -> None:
        """Nine points and a half."""
        shown_ = cost(overhead_ratio=1.02, overhead_ci95=(0.98, 1.075))
        assert (shown_.value, shown_.note.partition(",")[0]) == ("+2.0 %", "[-2.0")

    def test_a_wide_one_does_not(self) -> None:
        """Ten points and a half: the interval is told, the figure is not."""
        told = cost(overhead_ratio=1.02, overhead_ci95=(0.98, 1.085))
        assert told.value == "–"
        assert "not known here" in told.note
        assert "[-2.0, +8.5]" in told.note
        assert "2.0 %" not in told.value

    def test_what_rounds_to_nothing_has_no_minus(self) -> None:
        """-0.04 % is +0.0 %."""
        assert cost(overhead_ratio=0.9996, overhead_ci95=(0.99, 1.01)).value == "+0.0 %"

    def test_tensorboard_shows_it_only_where_it_is_known(self) -> None:
        """A scalar has no room for an interval."""
        run = sample_run()
        wide = run.model_copy(update={"totals": run.totals.model_copy(update={"overhead_ci95": (0.9, 1.1)})})
        assert tensorboard.results(run)["overhead_ratio"] == pytest.approx(1.008)
        assert "overhead_ratio" not in tensorboard.results(wide)

    def test_without_an_interval_nothing_is_known(self) -> None:
        """One batch's ratio is no figure."""
        told = cost(overhead_ratio=1.3, overhead_ci95=None)
        assert told.value == "–"
        assert "too few batches" in told.note

    def test_a_run_that_measured_no_latency_says_nothing(self) -> None:
        """No line without a ratio."""
        assert not any(fact.label == "cost of measuring" for fact in facts.end_to_end(bare_run()))


class TestFirstFormat:
    """Runs written before there was an interval, or a count of what was lost."""

    def old(self, folder: Path) -> Path:
        """Write a run as format 1 had it."""
        store.save(sample_run(), folder)
        data = json.loads((folder / "run.json").read_text())
        data["format"] = 1
        del data["totals"]["overhead_ci95"]
        for column in filter(None, data["ledger"].values()):
            del column["not_recorded"]
        (folder / "run.json").write_text(json.dumps(data))
        return folder

    def test_they_are_read_and_shown_as_they_were(self, tmp_path: Path) -> None:
        """The figure, with what it is worth."""
        run = store.load(self.old(tmp_path))
        assert run.format == 1 < FORMAT
        fact = next(fact for fact in facts.end_to_end(run) if fact.label == "cost of measuring")
        assert (fact.value, fact.note) == ("+0.8 %", "latency pass over bare pass, seconds apart")

    def test_they_stay_of_their_format_when_saved_again(self, tmp_path: Path) -> None:
        """Nothing is claimed of them that they do not hold."""
        run = store.load(self.old(tmp_path / "old"))
        store.save(run, tmp_path / "new")
        assert cast(int, store.load(tmp_path / "new").format) == 1
