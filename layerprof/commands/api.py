"""What `layerprof.profile` does, from Python and under the command of that name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerprof import settings as request
from layerprof.errors import RequestError
from layerprof.machine import streams
from layerprof.measure import check, conduct, prepare, save
from layerprof.measure.progress import Progress, Silent
from layerprof.records import Run
from layerprof.settings import Settings


def profile(settings: Settings | None = None, *, progress: Progress | None = None, **options: Any) -> Run:
    """Profile a model on a dataset, layer by layer, and return the run; its folder is `run.settings["output"]`.

    `options` are the command line's, with underscores: `profile(model="demo", dataset="coco", batch_size=4)`.

    Raises RequestError before anything is measured when the request cannot be carried out, and RunFailedError
    (after saving what was finished) when the model fails. An interrupt after the first answered batch returns a run
    whose `status` is `interrupted`.
    """
    if settings is not None and not isinstance(settings, Settings):
        raise RequestError(
            f"profile() was given a {type(settings).__name__}.", 'Name the options: profile(model="demo", samples=8).'
        )
    if settings is not None and options:
        raise RequestError(
            f"profile() was given settings, and {', '.join(options)} beside them.",
            'Give either: profile(settings), or profile(model="demo", samples=8).',
        )
    progress = progress or Silent()
    checked = check.check(settings or request.build(**options), note=progress.note)
    session = prepare.prepare(checked, progress)
    failure = conduct.conduct(session)
    with streams.uninterrupted():  # whoever presses Ctrl-C twice wants an end, not the loss of what was finished
        run = save.finish(session, failure, BESIDE)
    if failure is not None:
        raise failure
    return run


def _for_tensorboard(run: Run, folder: Path) -> dict[str, str]:
    from layerprof.report.formats import tensorboard

    return {"tensorboard": tensorboard.write(run, folder).name}


BESIDE = (_for_tensorboard,)
"""What a run gets beside it that is made for showing."""
