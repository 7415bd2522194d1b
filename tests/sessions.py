"""Sessions of the bundled model, as `layerprof.profile` makes and ends them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from layerprof.books import answers, assemble
from layerprof.commands.api import BESIDE
from layerprof.errors import LayerprofError
from layerprof.measure import check, prepare, save
from layerprof.measure.progress import Silent
from layerprof.measure.session import Session
from layerprof.records import Run
from layerprof.settings import Settings, build


def prepared(settings: Settings) -> Session:
    """Check the request, load what it needs."""
    return prepare.prepare(check.check(settings), Silent())


def two_batches(folder: Path) -> Session:
    """Prepare a run of two batches of the bundled model, saved into the folder."""
    return prepared(build(model="demo", dataset="coco", samples=2, max_new_tokens=2, trace=False, output=str(folder)))


def ended(session: Session, failure: LayerprofError | None) -> Run:
    """Save what the session has."""
    return save.finish(session, failure, BESIDE)


def assembled(session: Session) -> Run:
    """Return the run of what the session has; nothing is saved."""
    return assemble.run(
        session.asked, session.read, answers.score(session.asked, session.read.questions, session.read.bare)
    )


def ask(session: Session, **changes: Any) -> None:
    """Change what the session was asked: fields of `Asked`."""
    session.asked = dataclasses.replace(session.asked, **changes)


def ask_setting(session: Session, **changes: Any) -> None:
    """Change settings of the session."""
    ask(session, settings=session.asked.settings.model_copy(update=changes))
