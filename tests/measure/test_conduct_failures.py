"""How a run ends when things go wrong: an interrupt, a failure or a full disk costs what it hits, and no more."""

from __future__ import annotations

import errno
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from sessions import ask_setting, ended, two_batches

import layerprof
from layerprof.data import batching
from layerprof.errors import NothingFinishedError, RunFailedError
from layerprof.measure import answering, conduct, memory_pass, passes
from layerprof.measure.session import Session
from layerprof.report.formats import tensorboard


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Prepare a run of two batches."""
    return two_batches(tmp_path / "r")


def _stop_after(monkeypatch: pytest.MonkeyPatch, calls: int, error: BaseException) -> None:
    """Make the walk raise at its n-th answer."""
    real, count = answering.answer, [0]

    def answer(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] > calls:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(answering, "answer", answer)


def test_an_interrupt_saves_what_is_finished(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the second batch's two walks: one batch, its answer and its spans; no FLOPs, with a reason."""
    _stop_after(monkeypatch, 1 + 2 + 1, KeyboardInterrupt())
    run = ended(session, conduct.conduct(session))
    assert run.status == "interrupted"
    assert run.samples == 1
    assert session.read.spans is not None
    assert len(session.read.spans.windows_s) == len(session.read.hooked) == 1
    assert run.totals.flops is None
    assert run.ledger.flops.reason
    assert layerprof.load_run(session.folder).status == "interrupted"


def test_an_interrupt_in_the_walk_for_flops_leaves_no_part_of_them(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work of one batch beside calls of two would be half of what a call does: None, and how far it came."""
    shapes = count()
    monkeypatch.setattr(batching, "_shape", lambda *_: next(shapes))  # two kinds of batches
    _stop_after(monkeypatch, 1 + 4 + 1, KeyboardInterrupt())
    run = ended(session, conduct.conduct(session))
    assert (run.status, run.samples) == ("interrupted", 2)
    assert run.totals.flops is run.totals.flops_per_sample is None
    assert run.ledger.flops.reason == "interrupted after 1 of 2 batches to count"
    assert {row.flops for row in run.layers} == {None}
    assert run.ledger.span_s.total


@pytest.mark.parametrize(("traced", "kept"), [(0, False), (1, True)])
def test_an_interrupt_in_the_trace_keeps_the_batches_that_were_recorded(
    session: Session, monkeypatch: pytest.MonkeyPatch, traced: int, kept: bool
) -> None:
    """Their files are named, and their kernels in the books; without one there is no figure, not a zero."""
    _stop_after(monkeypatch, 1 + 4 + 2 + traced, KeyboardInterrupt())
    ask_setting(session, trace=True)
    run = ended(session, conduct.conduct(session))
    assert ("trace_0" in run.files) == kept
    assert "trace_1" not in run.files
    assert (run.ledger.busy_s.total is not None) == kept
    if not kept:
        assert run.ledger.busy_s.reason == "interrupted before the first batch was recorded"


def test_a_pass_that_was_interrupted_says_so(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the pass of memory: its books say that, and what came after did not run."""

    def interrupted(_: Session) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(memory_pass, "run", interrupted)
    ask_setting(session, memory=True, prefetch=1)
    run = ended(session, conduct.conduct(session))
    assert run.status == "interrupted"
    assert run.ledger.memory_bytes is not None
    assert run.ledger.memory_bytes.reason == run.passes["reasons"]["memory"] == "the pass was interrupted"
    assert "prefetch" not in run.passes["reasons"]
    assert run.totals.flops


def test_an_interrupt_before_the_first_answer_leaves_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to save: exit 130, and the empty folder is gone."""
    _stop_after(monkeypatch, 1, KeyboardInterrupt())
    failure = conduct.conduct(session)
    assert isinstance(failure, NothingFinishedError)
    assert failure.exit_code == 130
    with pytest.raises(NothingFinishedError):
        ended(session, failure)
    assert not session.folder.exists()


def test_a_model_that_fails_half_way_keeps_what_was_measured(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1 with a remedy; the run says that it failed and holds the first batch, with its spans."""
    _stop_after(monkeypatch, 1 + 2, RuntimeError("CUDA error: device-side assert"))
    failure = conduct.conduct(session)
    assert isinstance(failure, RunFailedError)
    assert failure.exit_code == 1
    run = ended(session, failure)
    assert run.status == "failed"
    assert run.samples == 1
    assert run.ledger.span_s.total
    assert any("device-side assert" in warning for warning in run.warnings)


def test_a_failure_in_the_first_hooked_walk_leaves_no_spans_of_zero(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bare answer is there; spans were not measured, which is not the same as none."""
    _stop_after(monkeypatch, 1 + 1, RuntimeError("the hooks do not fit"))
    run = ended(session, conduct.conduct(session))
    assert run.samples == 1
    assert run.ledger.span_s.total is None
    assert run.ledger.span_s.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (ModuleNotFoundError("No module named 'tensorboard'"), "No module named 'tensorboard'"),
    ],
)
def test_a_file_beside_the_run_that_cannot_be_written_costs_that_file(
    error: Exception, reason: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full for the summary, or no TensorBoard to write it with: the run is saved, with a warning."""

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(tensorboard, "write", full)
    run = ended(session, conduct.conduct(session))
    assert run.status == "done"
    assert "tensorboard" not in run.files
    assert "batches" in run.files
    assert reason in layerprof.load_run(session.folder).warnings[-1]


def test_a_run_that_its_folder_does_not_take_is_saved_elsewhere(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured for hours is not lost to a full disk: the message names the folder that has it."""
    (tmp_path / "spare").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spare"))
    failure = conduct.conduct(session)
    (session.folder / "run.json").mkdir()
    with pytest.raises(RunFailedError, match="could not be written") as caught:
        ended(session, failure)
    (saved,) = (tmp_path / "spare").iterdir()
    assert str(saved) in caught.value.remedy
    assert layerprof.load_run(saved).status == "done"


def test_out_of_memory_names_what_to_lower(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is the settings that take memory."""
    _stop_after(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory"))
    failure = conduct.conduct(session)
    assert failure is not None
    assert "--batch-size" in failure.remedy
    assert "--image-size" in failure.remedy


def test_pictures_of_native_size_are_bounded_where_memory_runs_out(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that torch itself raises for more bytes than there are; the remedy is the bound, not the side."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    _stop_after(monkeypatch, 0, caught.value)
    ask_setting(session, image_size="native")
    failure = conduct.conduct(session)
    assert failure is not None
    assert failure.problem == "The device ran out of memory."
    assert "--max-pixels" in failure.remedy
    assert "--image-size" not in failure.remedy


def test_a_pass_that_a_run_can_do_without_may_fail(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused profiler empties its column and says why; everything else stands."""

    def refuse(_: Any) -> None:
        raise PermissionError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

    monkeypatch.setattr(passes, "trace_pass", refuse)
    ask_setting(session, trace=True)
    run = ended(session, conduct.conduct(session))
    assert run.status == "done"
    assert "CUPTI" in str(run.ledger.busy_s.reason)
    assert any("CUPTI" in warning for warning in run.warnings)
