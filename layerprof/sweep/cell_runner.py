"""What a worker does with real cells: identifies them, and carries them out on one loaded model after the other.

A cell has two kinds of walk. Quality: the model writes to the end of each answer (with the token limit as a cap);
answers, word error rate and guards come from there. Work: with `fixed_tokens` every row writes exactly that many, so
that latency, FLOPs and energy of two cells are of the same work.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof import registry, settings
from layerprof.measure import check
from layerprof.sweep import quality_walk
from layerprof.sweep.cells import LOADED_BY, Guards, Identity, canonical
from layerprof.sweep.identity import identity_of

if TYPE_CHECKING:
    from layerprof.data.spec import Dataset
    from layerprof.measure.save import Beside
    from layerprof.measure.session import Session
    from layerprof.models.source import ModelSource
    from layerprof.models.subject import Subject
    from layerprof.settings import Settings

Tell = Callable[[str], None]
BESIDES_SETTINGS = ("padding_side",)


class CellRunner:
    """Runs cells one after the other. Holds one model and the samples last used, since most cells share them."""

    beside: Sequence[Beside] = ()
    """What else is written beside a cell's run."""

    def __init__(self) -> None:
        self._sources: dict[str, ModelSource] = {}
        self._subject: tuple[str, Subject] | None = None
        self._datasets: dict[str, Dataset] = {}
        self.spent = False
        """Whether the process has recorded a GPU, which slows what comes after: the next cell needs a fresh one."""

    def identify(self, choices: dict[str, Any], demo: dict[str, Any]) -> Identity:
        """Return who a cell is: every `auto` resolved, and what its figures depend on. Raises RequestError."""
        asked = _settings(choices)
        if demo and self._source(asked).found.kind == "demo":
            choices = choices | demo
            asked = _settings(choices)
        checked = check.check(asked, resolved=self._source)
        data = self.dataset(checked)
        return identity_of(checked, data, {"padding_side": choices.get("padding_side", "left")})

    def run(self, identity: Identity, repeat: int, folder: Path, tell: Tell) -> Guards | None:
        """Carry a cell out and write its run into the folder."""
        from layerprof.books import answers
        from layerprof.measure import conduct, prepare, save

        asked = _settings(identity.choices, output=str(folder))
        session = prepare.prepare(check.check(asked, resolved=self._source), Telling(tell), shelf=self)
        if identity.choices.get("padding_side") == "right":
            padded = session.asked.batches.then(quality_walk.padded_right)
            session.asked = dataclasses.replace(session.asked, batches=padded)
            session.read.warnings.append(
                "Padded on the right on purpose: answers of rows shorter than the longest are spoilt."
            )
        answered = _answered_to_the_end(session) if asked.fixed_tokens else None
        failure = conduct.conduct(session)
        self.spent = registry.load(registry.KERNELS).recorded_before()
        if failure is not None:
            raise failure
        answered = answered or quality_walk.of_bare_walk(session)
        run = save.save(session, answers.score(session.asked, answered.questions, answered.walked), None, self.beside)
        return quality_walk.guards(session, run, answered)

    # --- the shelf: what `prepare.prepare` asks for ------------------------------------------------------------

    def dataset(self, checked: check.Checked) -> Dataset:
        """Return samples, loaded once: cells of a sweep ask for the same ones again and again."""
        from layerprof.data import datasets
        from layerprof.measure import prepare

        asked = prepare.samples_asked(checked)
        key = canonical(asked)
        if key not in self._datasets:
            self._datasets[key] = datasets.load(**asked)
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
                str(source.attention),
                source.seed,
                str(source.quantized),
            ]
        )
        if self._subject is None or self._subject[0] != key:
            self._subject = None
            _release(source.device)
            self._subject = (key, load_model(source))
        return self._subject[1]

    def _source(self, asked: Settings) -> ModelSource:
        key = canonical([getattr(asked, name) for name in LOADED_BY])
        if key not in self._sources:
            self._sources[key] = check.resolve(asked)
        return self._sources[key]


def _answered_to_the_end(session: Session) -> quality_walk.Answers:
    """Walk for the answers, and so the rates: with a fixed number of tokens the bare walk writes on behind them."""
    start = time.perf_counter()
    answered = quality_walk.quality_walk(session)
    session.read.passes["quality_s"] = time.perf_counter() - start
    return answered


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


def _release(device: str) -> None:
    """Give a dropped model's memory back before the next one is loaded."""
    import gc

    gc.collect()
    if device != "cpu":
        import torch

        torch.cuda.empty_cache()
