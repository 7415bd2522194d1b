"""What a worker does with real cells: identifies them, and carries them out on one loaded model after the other.

A cell has two kinds of walk. Quality: the model writes to the end of each answer (with the token limit as a cap);
answers, word error rate and guards come from there. Work: with `fixed_tokens` every row writes exactly that many, so
that latency, FLOPs and energy of two cells are of the same work.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof import registry, settings
from layerprof.machine import environment
from layerprof.sweep import quality_walk
from layerprof.sweep.cells import Guards, Identity, canonical

if TYPE_CHECKING:
    from layerprof.data.spec import Dataset
    from layerprof.measure.session import Session
    from layerprof.models.source import ModelSource
    from layerprof.models.subject import Subject
    from layerprof.readings import Walked
    from layerprof.records import Run
    from layerprof.settings import Settings

Tell = Callable[[str], None]
WHOLE_FILE_BYTES = 64 * 10**6
"""Files up to this size are hashed whole; of larger ones, size and time of change stand for the content."""
PACKAGES = (*environment.PACKAGES, "tokenizers", "qwen-vl-utils", "pillow")
BESIDES_SETTINGS = ("padding_side",)


class Bench:
    """Runs cells one after the other. Holds one model and the samples last used, since most cells share them."""

    def __init__(self) -> None:
        self._sources: dict[str, ModelSource] = {}
        self._subject: tuple[str, Subject] | None = None
        self._datasets: dict[str, Dataset] = {}
        self.spent = False
        """Whether the process has recorded a GPU, which slows what comes after: the next cell needs a fresh one."""

    def identify(self, choices: dict[str, Any], demo: dict[str, Any]) -> Identity:
        """Return who a cell is: every `auto` resolved, and what its figures depend on. Raises RequestError."""
        from layerprof.layers import find
        from layerprof.models.source import check_image_size

        asked = _settings(choices)
        source = self._source(asked)
        if demo and source.found.kind == "demo":
            choices = choices | demo
            asked = _settings(choices)
            source = self._source(asked)
        find.parse_selector(asked.layers)
        for name in asked.hooks:
            registry.load_own(name)
        check_image_size(source, asked.image_size)
        data = self.dataset(
            asked.dataset,
            source=asked.source or ("bundled" if source.is_demo else "hub"),
            count=asked.samples,
            seed=asked.seed,
        )
        resolved = asked.model_dump(mode="json", exclude={"output"}) | {
            "model": _model_name(asked, source),
            "device": source.device,
            "dtype": source.dtype,
            "source": asked.source or ("bundled" if source.is_demo else "hub"),
            "max_new_tokens": asked.max_new_tokens or data.max_new_tokens,
            "padding_side": choices.get("padding_side", "left"),
        }
        return Identity(
            choices=resolved,
            model=_model_identity(source),
            data=_data_identity(data),
            device=environment.device_name(source.device),
            versions=_versions(source.device),
        )

    def run(self, identity: Identity, repeat: int, folder: Path, tell: Tell) -> Guards | None:
        """Carry a cell out and write its run into the folder."""
        from layerprof.measure import conduct

        asked = _settings(identity.choices, output=str(folder))
        session = conduct.prepare(asked, Telling(tell), shelf=self)
        if identity.choices.get("padding_side") == "right":
            session.batches = tuple(quality_walk.padded_right(batch) for batch in session.batches)
            session.warnings.append(
                "Padded on the right on purpose: answers of rows shorter than the longest are spoilt."
            )
        start = time.perf_counter()
        answered, not_finite = quality_walk.quality_walk(session)
        session.passes["quality_s"] = time.perf_counter() - start
        failure = conduct.conduct(session)
        self.spent = registry.load("kernels").recorded_before()
        if failure is not None:
            raise failure
        run = self._finish(session, answered)
        return quality_walk.guards(session, run, answered, not_finite)

    def _finish(self, session: Session, answered: list[Walked]) -> Run:
        """Save the run with the answers, and so the rates, of the quality walk."""
        from layerprof.books import assemble
        from layerprof.measure import conduct

        quality = dataclasses.replace(session, bare=answered)
        wer, metric, _ = assemble.quality(quality)
        run = assemble.run(session, None)
        totals = run.totals.model_copy(update={"wer": wer, "task_metric": metric})
        return conduct.save(session, run.model_copy(update={"totals": totals}), assemble.samples(quality))

    # --- the shelf: what `profiler.prepare` asks for ------------------------------------------------------------

    def dataset(self, name: str, *, source: str, count: int, seed: int) -> Dataset:
        """Return samples, loaded once: cells of a sweep ask for the same ones again and again."""
        from layerprof.data import datasets

        key = canonical([name, source, count, seed])
        if key not in self._datasets:
            self._datasets[key] = datasets.load(name, source=source, count=count, seed=seed)
        return self._datasets[key]

    def subject(self, source: ModelSource) -> Subject:
        """Return the loaded model; another one than last time takes its place."""
        from layerprof.models.load import load_model

        # A compiled model is another object than the same model uncompiled, so optimisations do not share either.
        key = canonical(
            [
                source.name,
                source.found.location,
                source.weights,
                source.device,
                source.dtype,
                source.optimization,
                source.seed,
            ]
        )
        if self._subject is None or self._subject[0] != key:
            self._subject = None
            _release(source.device)
            self._subject = (key, load_model(source))
        return self._subject[1]

    def _source(self, asked: Settings) -> ModelSource:
        from layerprof.models.source import resolve

        names = ("weights", "device", "dtype", "optimization")
        given = {name: getattr(asked, name) for name in names}
        key = canonical([asked.model, given])
        if key not in self._sources:
            self._sources[key] = resolve(asked.model, **given)
        return self._sources[key]


class Telling:
    """Passes the progress of a run on as short lines."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell

    def note(self, text: str) -> None:
        """Swallow the note: a sweep says in its plan what runs where."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Tell each step, at most ten times a second."""
        done, last = 0, 0.0
        self.tell(f"{title} 0/{total}")

        def advance() -> None:
            nonlocal done, last
            done += 1
            if time.monotonic() - last > 0.1:
                last = time.monotonic()
                self.tell(f"{title} {done}/{total}")

        yield advance


def _settings(choices: dict[str, Any], **more: Any) -> Settings:
    return settings.build(**{name: value for name, value in choices.items() if name not in BESIDES_SETTINGS}, **more)


def _model_name(asked: Settings, source: ModelSource) -> str:
    return source.name if asked.model.strip().lower() == "auto" else asked.model


def _model_identity(source: ModelSource) -> dict[str, Any]:
    found = source.found
    place = Path(found.location)
    content = _content(place) if found.kind in ("demo", "folder", "architecture") else None
    return {
        "name": source.name,
        "kind": found.kind,
        "revision": found.revision,
        "weights": source.weights,
        "parameters": source.parameters,
        "content": content,
    }


def _data_identity(data: Dataset) -> dict[str, Any]:
    asked = [[example.question, example.choices, example.hint, example.references] for example in data.examples]
    folder = Path(data.source)
    return {
        "name": data.name,
        "source": data.source,
        "revision": data.revision,
        "prompt_id": data.prompt_id,
        "ids": [example.id for example in data.examples],
        "texts": hashlib.sha256(canonical(asked).encode()).hexdigest()[:16],
        "content": _content(folder) if data.source not in ("bundled", "hub") and folder.exists() else None,
    }


def _content(place: Path) -> str:
    """Return a hash of a file, or of the files in a folder.

    Hashed are their names, and their content or, when large, size and time.
    """
    digest = hashlib.sha256()
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if file.is_file():
            stat = file.stat()
            digest.update(f"{file.relative_to(place)}\0{stat.st_size}\0".encode())
            small = stat.st_size <= WHOLE_FILE_BYTES
            digest.update(file.read_bytes() if small else str(stat.st_mtime_ns).encode())
    return digest.hexdigest()[:16]


def _versions(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {name: environment.package_version(name) for name in PACKAGES}
    driver = None if device == "cpu" else environment.gpu_state(device).get("driver")
    return found | {"python": platform.python_version(), "driver": driver}


def _release(device: str) -> None:
    """Give a dropped model's memory back before the next one is loaded."""
    import gc

    gc.collect()
    if device != "cpu":
        import torch

        torch.cuda.empty_cache()
