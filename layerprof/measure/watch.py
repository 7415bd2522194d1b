"""FLOPs from the user's own calls: operators are watched the first times that a step has its shapes, and then known.

A *step* is one pass through the model's `forward`. What it does depends on what it is given (`signature`): a step that
is given the same again, and whose layers are then given the same shapes (its *trail*), has done the same work. That is
checked: the first two repeats are watched again, later the 4th, the 8th, the 16th; once two differ, the model keeps
something or decides by values, every step is watched from then on, and what was taken for known is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import fsum, inf
from time import perf_counter
from typing import Any, Protocol

from layerprof.machine.internals import unseen
from layerprof.measure.signature import Shapes, shapes_in, signature
from layerprof.measure.steps import Call, Facts, Known, Lengths, Part, Trail, same, times
from layerprof.readings import NOT_WATCHED, Layer, Uncounted, WorkReading
from layerprof.records import Phase

SURE = 2
"""Repeats that must have done the same before others are taken to."""


class Counting(Protocol):
    """What the watch needs of the hook that counts."""

    def followed(self, index: int, prompt: int | None = None) -> AbstractContextManager[None]:
        """Return what stands around an outermost call."""

    def watching(self) -> AbstractContextManager[None]:
        """Return a context in which operators are counted."""

    def looking_away(self) -> AbstractContextManager[bool]:
        """Return a context inside `watching` in which they are not; it gives whether that can be."""

    def take(self) -> WorkReading:
        """Return what was counted since this was last asked."""


class Watch:
    """Decides which steps are watched, and says what all of them did; `always` watches each.

    `note` is to be called at every call of a layer. Where `blind()` gives a reason, nothing can be watched at that
    moment; the last one is kept in `why`. `disturbed` are the (answered call, decode step) pairs whose spans hold the
    watching.
    """

    def __init__(
        self,
        hook: Counting,
        layers: Sequence[Layer],
        name: str,
        *,
        always: bool = False,
        blind: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.facts = Facts()
        self._clock = clock
        self._lengths: dict[Hashable, Lengths] = {}
        self.disturbed: set[tuple[int, int]] = set()
        self.differed = False
        self.why = ""
        self._always, self._blind = always, blind
        self._hook, self._layers, self._name = hook, layers, name
        self._known: dict[Hashable, Known] = {}
        self._sum = WorkReading()
        self._answered = self._repeats = self._agreed = 0
        self._trail: list[tuple[int, Phase, Shapes]] = []
        self._call = Call(0)

    def note(self, slot: int, phase: Phase, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Note a layer's call."""
        with unseen():
            self._trail.append((slot, phase, shapes_in(args, kwargs)))

    # --- calls ------------------------------------------------------------------------------------------------

    @contextmanager
    def call(
        self,
        index: int,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        around: bool,
        prompt: int | None = None,
        why_not: str = "",
        state: Hashable = 0,
    ) -> Iterator[None]:
        """Stand around an outermost call; `around` says that it does more than its one step (`generate`).

        `why_not` forbids to watch beside the steps. Calls in which the model is of another `state` are others.
        """
        self._call = call = Call(self._answered, state=state)
        self._trail.clear()
        self._hook.take()  # of a call that failed, or of what ran between calls
        key = ("beside", state, known) if (known := signature(args, kwargs)) is not None else None
        with self._hook.followed(index, prompt):
            if around:
                yield from self._beside(key, call, why_not or self._blind())
            else:
                yield
        self._add(call)

    def _beside(self, key: Hashable, call: Call, why_not: str) -> Iterator[None]:
        """Watch what a call does beside its steps: an encoder that is called by itself, a second model."""
        if why_not or not self._look(key):
            yield
            self._unwatched(None if why_not else key, call, step=False, why=why_not)
            return
        with self._hook.watching():
            call.watched = True
            yield
            call.around += self._hook.take()
        self._learn(key, call, call.around, step=False)

    @contextmanager
    def step(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], number: Callable[[], int]) -> Iterator[None]:
        """Stand around a pass through `forward`; `number()` is that of the decode step once it is over."""
        call = self._call
        if call.inside:  # the model calls itself
            yield
            return
        call.inside = True
        beside, self._trail = self._trail, []
        if call.watched:
            call.around += self._hook.take()
        try:
            key = (call.state, known) if (known := signature(args, kwargs)) is not None else None
            yield from self._one(key, call, number)
        except BaseException:
            self._hook.take()
            call.parts.append(Part(step=True, trail=tuple(self._trail)))
            raise
        finally:
            call.inside = False
            self._trail = beside

    def _one(self, key: Hashable, call: Call, number: Callable[[], int]) -> Iterator[None]:
        blind = self._blind()
        look, began = not blind and self._look(key), self._clock()
        if not look:
            with self._hook.looking_away() if call.watched else nullcontext(True) as away:
                yield
            if away or blind:
                if not away:
                    self._hook.take()  # of what could not be looked away from, and is not to be looked at
                self._took(key, began, watched=False)
                self._unwatched(None if blind else key, call, step=True, why=blind)
                return
        else:
            with self._hook.watching():
                yield
            self._took(key, began, watched=True)
        call.disturbed.add((call.number, number()))
        self._learn(key, call, self._hook.take(), step=True)

    # --- what is known ----------------------------------------------------------------------------------------

    def _look(self, key: Hashable) -> bool:
        """Decide whether to watch what is about to run."""
        if self._always or self.differed or key is None or key not in self._known:
            return True
        self._repeats += 1
        return self._agreed < SURE or self._repeats & (self._repeats - 1) == 0

    def _learn(self, key: Hashable, call: Call, reading: WorkReading, *, step: bool) -> None:
        """Take what was watched, and see whether it is what was known."""
        trail = tuple(self._trail)
        call.parts.append(Part(step, trail, reading))
        if key is None or self.differed or self._always:  # always: nothing is ever asked of what is known
            return
        if (before := self._known.get(key)) is not None:
            if before.trail != trail or not same(before.reading, reading):
                self._differs()
                return
            self._agreed += 1
            if before.taken:
                self._sum += times(before.reading, before.taken)
        self._known[key] = Known(reading, trail, step)

    def _unwatched(self, key: Hashable, call: Call, *, step: bool, why: str = "") -> None:
        """Take what ran unwatched for what is known of its key, if it went the same way."""
        trail, known = tuple(self._trail), self._known.get(key)
        if known is not None and known.trail == trail:
            call.parts.append(Part(step, trail, key=key))
            return
        if why:
            self.why = why
        else:
            self._differs()
        if step or trail or why:
            call.parts.append(Part(step, trail))

    def _differs(self) -> None:
        """Take nothing for known from now on; what was since it was last seen to be so, is not."""
        self.differed = True
        for known in self._taken():
            self._sum += times(self._nothing(known.trail), known.taken)
            if known.step:
                self.facts.known -= known.taken
                self.facts.missed += known.taken
            known.taken = 0

    def _nothing(self, trail: Trail) -> WorkReading:
        """Return the reading of a step of which nothing is known but the layers that it called."""
        called = {(self._layers[slot], phase): Uncounted(1, None) for slot, phase, _ in trail}
        own = {(layer.name, phase, NOT_WATCHED): one for (layer, phase), one in called.items() if layer.found}
        inside = {(layer.name, phase, NOT_WATCHED): one for (layer, phase), one in called.items()}
        nowhere = {(self._name, Phase.PREFILL, NOT_WATCHED): Uncounted(1, None)}
        return WorkReading(uncounted=own or nowhere, uncounted_inside=inside)

    # --- sums -------------------------------------------------------------------------------------------------

    def _add(self, call: Call) -> None:
        for part in call.parts:
            if part.reading is not None:
                self._sum += part.reading
                self.facts.watched += part.step
            elif part.key is not None and not self.differed:
                self._known[part.key].taken += 1
                self.facts.known += part.step
            else:
                self._sum += self._nothing(part.trail)
                self.facts.missed += part.step
        self.disturbed |= call.disturbed
        self._answered += 1

    def slowdown(self) -> float | None:
        """Return how many times as long steps took watched as unwatched; None where none of them ran both ways.

        By the shortest of each: the first watched one of all also makes the acquaintance of every operator.
        """
        both = [it for it in self._lengths.values() if max(it.watched_s, it.alone_s) < inf]
        alone = fsum(it.alone_s for it in both)
        return fsum(it.watched_s for it in both) / alone if alone else None

    def _took(self, key: Hashable, began: float, *, watched: bool) -> None:
        """Note the host's seconds of a step, by whether it was watched."""
        if key is None:
            return
        lengths, took = self._lengths.setdefault(key, Lengths()), self._clock() - began
        if watched:
            lengths.watched_s = min(lengths.watched_s, took)
        else:
            lengths.alone_s = min(lengths.alone_s, took)

    def reading(self) -> WorkReading:
        """Return what all answered calls did."""
        return sum((times(known.reading, known.taken) for known in self._taken()), self._sum)

    def _taken(self) -> list[Known]:
        """Return what has been taken for known since it was watched; a sum copies all that is in it."""
        return [known for known in self._known.values() if known.taken]
