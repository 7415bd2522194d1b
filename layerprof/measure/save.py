"""A session that has ended -> a run in its folder, with everything that lies beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from layerprof.books import answers, assemble, joules
from layerprof.books.answers import Scored
from layerprof.errors import LayerprofError, RunFailedError
from layerprof.measure.session import Session
from layerprof.records import Run
from layerprof.runs import batch_files, store

Beside = Callable[[Run, Path], dict[str, str]]
"""Writes something beside a run into its folder; returns the files' names for `run.files`."""


def finish(session: Session, failure: LayerprofError | None, beside: Sequence[Beside] = ()) -> Run:
    """Freeze the session into a run and save it. Raises the failure where nothing was finished."""
    if not session.read.bare:
        assert failure is not None
        store.discard_folder(session.folder)
        raise failure
    return save(session, answers.score(session.asked, session.read.questions, session.read.bare), failure, beside)


def save(session: Session, scored: Scored, failure: LayerprofError | None, beside: Sequence[Beside] = ()) -> Run:
    """Write a run with what lies beside it: samples, the times of each batch, the spans of each layer in it.

    A file beside it that the disk refuses, or that needs a missing package, costs that file and a warning. Where the
    run itself is refused, it goes into a folder for temporary files, which the error names.
    """
    run, folder = assemble.run(session.asked, session.read, scored, failure), session.folder
    files, refused = dict(run.files), []
    for write in (_of_batches(session), _of_energy(session), *beside):
        try:
            files |= write(run, folder)
        except (OSError, ImportError) as error:
            reason = getattr(error, "strerror", None) or error
            refused.append(f"A file beside the run could not be written: {reason}.")
    whole = run.model_copy(update={"files": files, "warnings": (*run.warnings, *dict.fromkeys(refused))})
    try:
        return store.save(whole, folder, samples=scored.samples)
    except RunFailedError as refusal:
        raise _rescued(refusal, whole, scored) from refusal


def _of_batches(session: Session) -> Beside:
    asked, read = session.asked, session.read
    return lambda _, folder: batch_files.write(folder, read.bare, read.hooked, read.spans, asked.selected, read.made)


def _of_energy(session: Session) -> Beside:
    def write(_: Run, folder: Path) -> dict[str, str]:
        content = joules.details(session.read.energy)
        if content is None:
            return {}
        store.write_atomic(folder / joules.ENERGY_FILE, orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
        return {"energy": joules.ENERGY_FILE}

    return write


def _rescued(refusal: RunFailedError, run: Run, scored: Scored) -> RunFailedError:
    """Save a run that its own folder did not take somewhere else; return the error that says where, if anywhere."""
    try:
        place = tempfile.mkdtemp(prefix="layerprof-")
        moved = run.model_copy(update={"settings": run.settings | {"output": place}})
        store.save(moved, place, samples=scored.samples)
    except (OSError, RunFailedError):
        return refusal
    return RunFailedError(refusal.problem, f"It was saved to {place} instead: free space, then move it.")
