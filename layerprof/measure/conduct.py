"""Conducts the passes of one run: the only place that meets both the live model and the records."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, Protocol

from layerprof import registry
from layerprof import settings as settings_module
from layerprof.errors import LayerprofError, NothingFinishedError, RequestError, RunFailedError, out_of_memory
from layerprof.machine import streams
from layerprof.measure import passes
from layerprof.measure.progress import Progress, Silent
from layerprof.measure.session import Session
from layerprof.records import Run
from layerprof.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from layerprof.data.spec import Dataset
    from layerprof.layers.selector import Selector
    from layerprof.models.source import ModelSource
    from layerprof.models.subject import Subject
    from layerprof.records import Sample


class Shelf(Protocol):
    """Hands out models and samples that were loaded before; for callers with many runs on the same ones."""

    def dataset(self, name: str, *, source: str, count: int, seed: int) -> Dataset:
        """Return samples as `datasets.load` does."""

    def subject(self, source: ModelSource) -> Subject:
        """Return a loaded model as `load_model` does."""


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
    settings = settings or settings_module.build(**options)
    session = prepare(settings, progress or Silent())
    failure = conduct(session)
    with streams.uninterrupted():  # whoever presses Ctrl-C twice wants an end, not the loss of what was finished
        run = finish(session, failure)
    if failure is not None:
        raise failure
    return run


def prepare(settings: Settings, progress: Progress, *, shelf: Shelf | None = None) -> Session:
    """Check everything that can be checked without a model, then load model and samples, or take them from the shelf.

    The order is cheapest first, so that a mistake is told before anybody waits.
    """
    from layerprof.data import datasets
    from layerprof.layers import find
    from layerprof.measure import energy_pass
    from layerprof.models.load import load_model
    from layerprof.models.source import check_image_size, resolve
    from layerprof.runs import store

    selector = find.parse_selector(settings.layers)
    for name in settings.hooks:
        registry.load_own(name)
    source = resolve(
        settings.model,
        weights=settings.weights,
        device=settings.device,
        dtype=settings.dtype,
        optimization=settings.optimization,
        seed=settings.seed,
    )
    progress.note(source.why)
    check_image_size(source, settings.image_size)
    remark = energy_pass.check(settings, source.device)
    folder = store.prepare_folder(settings.output, f"{source.label}-{settings.dataset}")
    try:
        dataset = (shelf.dataset if shelf else datasets.load)(
            settings.dataset,
            source=settings.source or ("bundled" if source.is_demo else "hub"),
            count=settings.samples,
            seed=settings.seed,
        )
        subject = (shelf.subject if shelf else load_model)(source)
        session = open_session(settings, progress, subject, dataset, selector, folder)
    except BaseException:
        store.discard_folder(folder)
        raise
    if remark:
        progress.note(remark)
        session.warnings.append(remark)
    return session


def open_session(
    settings: Settings, progress: Progress, subject: Subject, dataset: Dataset, selector: Selector, folder: Path
) -> Session:
    """Return the session of a loaded model and its samples: layers located, batches made.

    Hooks sit on every located layer, so that phases and the rest are known; the selection decides what gets a row.
    """
    from layerprof.data import batching
    from layerprof.layers import find

    found = find.find_layers(subject.model)
    selected = find.select(found, selector, subject.model)
    batches = batching.batches(
        subject,
        dataset,
        batch_size=settings.batch_size,
        image_size=settings.image_size,
        max_input_len=settings.max_input_len,
    )
    return Session(
        settings=settings,
        subject=subject,
        dataset=dataset,
        layers=found + tuple(layer for layer in selected if layer not in found),
        selected=selected,
        batches=batches,
        folder=folder,
        progress=progress,
        max_new_tokens=settings.max_new_tokens or dataset.max_new_tokens,
    )


def conduct(session: Session) -> LayerprofError | None:
    """Run the passes; return the error that ended them early, if any. What was finished stays in the session."""
    from layerprof.measure import energy_pass

    chosen = session.settings
    try:
        passes.remark_on_earlier_traces(session)
        with passes.optimized(session):
            passes.warm_up(session)
            passes.bare_and_latency(session)
            passes.flops_pass(session)
            if chosen.cross_check:
                optional(session, "cross_check", passes.cross_check, True, "")
            optional(session, "energy", energy_pass.run, chosen.energy != "off", "--energy off was given")
            own_hooks(session)
            # Last, since CUPTI stays attached to the process and slows whatever runs after it.
            optional(session, "kernels", passes.trace_pass, chosen.trace, "--no-trace was given")
    except KeyboardInterrupt:
        session.interrupted = True
        session.warnings.append("Interrupted: figures are of what was finished by then.")
        if not session.bare:
            return NothingFinishedError("Interrupted before the first answer.", "Nothing is saved; start again.")
    except LayerprofError as error:
        return error
    except Exception as error:
        return _failure(error)
    return None


def optional(session: Session, name: str, work: Any, wanted: bool, why_not: str) -> None:
    """Run a pass that a run can do without: when it fails, its figures are None and the reason is kept and shown."""
    if not wanted:
        session.reasons[name] = why_not
        return
    try:
        work(session)
    except RequestError:
        raise
    except Exception as error:
        session.reasons[name] = f"the pass failed: {type(error).__name__}: {error}"
        session.warnings.append(f"The {name} pass failed ({type(error).__name__}: {error}); its columns are empty.")


def own_hooks(session: Session) -> None:
    """Walk with each hook that the user named; what a hook raises is told as the hook's failure, not the model's."""
    try:
        passes.user_passes(session)
    except LayerprofError:
        raise
    except (Exception, SystemExit) as error:
        if out_of_memory(error):
            raise
        name = next(name for name in session.settings.hooks if name not in session.passes)
        raise _caused(
            f"The hook '{name}' failed: {type(error).__name__}: {error}",
            "Correct it (docs/hooks.md) or leave it out; what was measured before it is saved.",
            error,
        ) from error


def _failure(error: Exception) -> RunFailedError:
    if out_of_memory(error):
        problem = "The device ran out of memory."
        return _caused(problem, "Lower --batch-size, --image-size or --max-new-tokens, or use --dtype fp16.", error)
    return _caused(
        f"The model failed while it was being measured: {type(error).__name__}: {error}",
        "Try --model demo; if that works, the model or its inputs are at fault: measure it in your own loop with "
        "layerprof.LayerProfiler.",
        error,
    )


def _caused(problem: str, remedy: str, cause: BaseException) -> RunFailedError:
    failure = RunFailedError(problem, remedy)
    failure.__cause__ = cause
    return failure


def finish(session: Session, failure: LayerprofError | None) -> Run:
    """Freeze the session into a run and save it with everything that lies beside it."""
    from layerprof.books import assemble
    from layerprof.runs import store

    if not session.bare:
        assert failure is not None
        store.discard_folder(session.folder)
        raise failure
    return save(session, assemble.run(session, failure), assemble.samples(session))


def save(session: Session, run: Run, samples: Iterable[Sample]) -> Run:
    """Write a run with what lies beside it: samples, the times of each batch, the spans of each layer in it.

    A file beside it that the disk refuses, or that needs a missing package, costs that file and a warning. Where the
    run itself is refused, it goes into a folder for temporary files, which the error names.
    """
    from layerprof.books import joules
    from layerprof.report.formats import tensorboard
    from layerprof.runs import batch_files, store

    kept, folder = tuple(samples), session.folder
    files, refused = dict(run.files), []
    writers: tuple[Callable[[], dict[str, str]], ...] = (
        lambda: batch_files.write(session, folder),
        lambda: joules.write(session, folder),
        lambda: {"tensorboard": tensorboard.write(run, folder).name},
    )
    for write in writers:
        try:
            files |= write()
        except (OSError, ImportError) as error:
            reason = getattr(error, "strerror", None) or error
            refused.append(f"A file beside the run could not be written: {reason}.")
    whole = run.model_copy(update={"files": files, "warnings": (*run.warnings, *dict.fromkeys(refused))})
    try:
        return store.save(whole, folder, samples=kept)
    except RunFailedError as failure:
        raise _rescued(failure, whole, kept) from failure


def _rescued(failure: RunFailedError, run: Run, samples: tuple[Sample, ...]) -> RunFailedError:
    """Save a run that its own folder did not take somewhere else; return the error that says where, if anywhere."""
    from layerprof.runs import store

    try:
        place = tempfile.mkdtemp(prefix="layerprof-")
        store.save(run.model_copy(update={"settings": run.settings | {"output": place}}), place, samples=samples)
    except (OSError, RunFailedError):
        return failure
    return RunFailedError(failure.problem, f"It was saved to {place} instead: free space, then move it.")
