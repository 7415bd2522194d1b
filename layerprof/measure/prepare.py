"""A checked request -> a session: model and samples loaded, layers located, batches made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from layerprof.books.evidence import Asked
from layerprof.measure.session import Session
from layerprof.settings import INSTRUMENTED

if TYPE_CHECKING:
    from layerprof.data.spec import Dataset
    from layerprof.layers.selector import Selector
    from layerprof.measure.check import Checked
    from layerprof.measure.progress import Progress
    from layerprof.models.source import ModelSource
    from layerprof.models.subject import Subject
    from layerprof.settings import Settings


class Shelf(Protocol):
    """Hands out models and samples, loaded now or before."""

    def dataset(self, checked: Checked) -> Dataset:
        """Return the samples of a request as `datasets.load` does."""

    def subject(self, source: ModelSource) -> Subject:
        """Return a loaded model as `load_model` does."""


class Loading:
    """The shelf with nothing on it: everything is loaded when it is asked for."""

    def dataset(self, checked: Checked) -> Dataset:
        """Return samples. Raises RequestError (see `datasets.load`)."""
        from layerprof.data import datasets

        return datasets.load(**samples_asked(checked))

    def subject(self, source: ModelSource) -> Subject:
        """Return a loaded model. Raises RequestError (see `load_model`)."""
        from layerprof.models.load import load_model

        return load_model(source)


def samples_asked(checked: Checked) -> dict[str, Any]:
    """Return which samples a request is of, as `datasets.load` takes it; equal for requests of the same ones."""
    settings = checked.settings
    return {
        "name": settings.dataset,
        "source": checked.samples_from,
        "count": settings.samples,
        "seed": settings.seed,
        "skip_bad": settings.skip_bad,
        "pictured": checked.source.reads_images,
    }


def prepare(checked: Checked, progress: Progress, *, shelf: Shelf | None = None) -> Session:
    """Load model and samples, or take them from the shelf; where that fails, no folder is left behind."""
    from layerprof.models.attention import differences
    from layerprof.runs import store

    settings, shelf = checked.settings, shelf or Loading()
    folder = store.prepare_folder(settings.output, f"{checked.source.label}-{settings.dataset}")
    try:
        dataset = shelf.dataset(checked)
        subject = shelf.subject(checked.source)
        asked = ask(settings, subject, dataset, checked.selector, folder)
    except BaseException:
        store.discard_folder(folder)
        raise
    session = Session(asked=asked, subject=subject, folder=folder, progress=progress)
    ran = differences(subject.attention, asked.model["attention"]) if subject.attention else ()
    for remark in filter(None, (checked.source.remark, checked.remark, dataset.remark, *ran)):
        progress.note(remark)
        session.read.warnings.append(remark)
    return session


def ask(settings: Settings, subject: Subject, dataset: Dataset, selector: Selector, folder: Path) -> Asked:
    """Return what is asked of a loaded model: layers located, all texts checked; batches are made in the walks.

    Hooks sit on every located layer, so that phases and the rest are known; the selection decides what gets a row.
    """
    from layerprof.data import batching
    from layerprof.layers.attention import attention
    from layerprof.layers.find import find_layers
    from layerprof.layers.selector import select

    found = find_layers(subject.model)
    selected = select(found, selector, subject.model)
    batches = batching.Batches(
        subject,
        dataset,
        batch_size=settings.batch_size,
        image_size=settings.image_size,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        max_input_len=settings.max_input_len,
        skip_bad=settings.skip_bad,
    )
    if subject.attention is not None:
        settings = settings.model_copy(update={"attention": str(subject.attention)})
    return Asked(
        settings=settings,
        model={**subject.provenance, "attention": attention(subject.model)},
        device=subject.device,
        dataset=dataset,
        batches=batches,
        layers=found + tuple(layer for layer in selected if layer not in found),
        selected=selected,
        max_new_tokens=settings.max_new_tokens or dataset.max_new_tokens,
        output=str(folder),
        instrumented=_instrumented(settings, len(dataset.examples)),
    )


def _instrumented(settings: Settings, samples: int) -> int:
    """Return how many batches the instruments walk: whole ones, that hold as many samples as asked for."""
    asked = settings.instrumented or INSTRUMENTED
    return -(-(samples if asked == "all" else asked) // settings.batch_size)
