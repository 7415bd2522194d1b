"""Which steps are watched, and what those that were not are taken to have done; the counting hook is a fake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from layerprof.measure.watch import Watch
from layerprof.readings import NOT_WATCHED, Layer, Work, WorkReading
from layerprof.records import Phase

LAYERS = (Layer("a", "language", "decoder_layer", 0), Layer("b", "language", "decoder_layer", 1))


class Counts:
    """Counts what `work` is told while it is watching; says what it was asked."""

    def __init__(self, *, can_look_away: bool = True) -> None:
        self.can_look_away = can_look_away
        self.on = 0
        self.away = 0
        self.seen = 0

    @contextmanager
    def followed(self, index: int, prompt: int | None = None) -> Iterator[None]:
        """Nothing is done around a call."""
        yield

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count."""
        self.on += 1
        yield
        self.on -= 1

    @contextmanager
    def looking_away(self) -> Iterator[bool]:
        """Do not."""
        self.away += self.can_look_away
        yield self.can_look_away
        self.away -= self.can_look_away

    def work(self, flops: int) -> None:
        """Do some work in layer `a`."""
        self.seen += flops * (self.on > 0 and not self.away)

    def take(self) -> WorkReading:
        """Return what was counted."""
        seen, self.seen = self.seen, 0
        return WorkReading({("a", Phase.PREFILL): Work(calls=1, flops=seen)}, {}, seen) if seen else WorkReading()


class Loop:
    """A user's loop: each call is one step (or, as `generate`, several), which does some work in layer `a`."""

    def __init__(self, **options: Any) -> None:
        self.hook = Counts(**{k: v for k, v in options.items() if k == "can_look_away"})
        self.watch = Watch(self.hook, LAYERS, "Model", **{k: v for k, v in options.items() if k != "can_look_away"})

    def call(self, *steps: tuple[int, int], around: int | None = None) -> None:
        """Make a call of steps (length of the input, work); `around` is the work that it does beside them."""
        x = torch.ones(2, 3)
        with self.watch.call(0, (x,), {}, around=around is not None):
            self.hook.work(around or 0)
            for length, flops in steps:
                self.step(length, flops)

    def step(self, length: int, flops: int) -> None:
        """Make one pass through the model."""
        given = torch.ones(2, length)
        with self.watch.step((given,), {}, lambda: length):
            self.watch.note(0, Phase.PREFILL, (given,), {})
            self.hook.work(flops)

    @property
    def facts(self) -> tuple[int, int, int]:
        """Steps that were watched, taken for known, and missed."""
        facts = self.watch.facts
        return facts.watched, facts.known, facts.missed

    @property
    def flops(self) -> int:
        """What all calls are said to have done."""
        return self.watch.reading().total_flops


def uncounted(loop: Loop) -> dict[tuple[str, str], int]:
    """Return the calls of layers of which nothing is known."""
    found = loop.watch.reading().uncounted
    return {(name, phase.value): it.calls for (name, phase, op), it in found.items() if op == NOT_WATCHED}


@pytest.mark.parametrize(
    ("calls", "watched"),
    [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (8, 4), (9, 5), (17, 6), (100, 8)],
)
def test_equal_steps_are_watched_first_twice_more_and_then_at_powers_of_two(calls: int, watched: int) -> None:
    """The first; its first two repeats, which must do the same; the 4th, 8th, 16th, 32nd and 64th repeat."""
    loop = Loop()
    for _ in range(calls):
        loop.call((5, 100))
    assert loop.facts == (watched, calls - watched, 0)
    assert loop.flops == 100 * calls


def test_each_shape_is_watched() -> None:
    """A step that is given another shape is another step."""
    loop = Loop()
    for length in (5, 6, 7):
        loop.call((length, 10 * length))
    assert loop.facts == (3, 0, 0)
    assert loop.flops == 180


def test_shapes_that_were_met_in_other_calls_are_known() -> None:
    """Decode steps of one generation at lengths that another went through: only what is new is watched."""
    loop = Loop()
    loop.call(*[(length, length) for length in range(10, 20)], around=0)
    loop.call(*[(length, length) for length in range(10, 20)], around=0)
    watched = loop.watch.facts.watched
    loop.call(*[(length, length) for length in range(12, 22)], around=0)
    assert loop.watch.facts.watched - watched in (2, 3, 4), "lengths 20 and 21, and what is checked at powers of two"
    assert loop.flops == 2 * sum(range(10, 20)) + sum(range(12, 22))


def test_always_means_each() -> None:
    """Nothing is taken for known."""
    loop = Loop(always=True)
    for _ in range(20):
        loop.call((5, 100))
    assert loop.facts == (20, 0, 0)
    assert loop.flops == 2000


def test_a_model_that_keeps_something_is_watched_in_every_step() -> None:
    """Two equal steps that do unequal work are told at the first repeat, and each is counted as it was."""
    loop = Loop()
    for number in range(1, 6):
        loop.call((5, 100 * number))
    assert loop.watch.differed
    assert loop.facts == (5, 0, 0)
    assert loop.flops == 1500


def test_what_was_taken_for_known_before_a_difference_showed_is_not() -> None:
    """Calls 1 to 3 are watched and 4 is not; the 5th, watched again, does other work: so 4 may have done so, too."""
    loop = Loop()
    for flops in (100, 100, 100, 900, 900, 900):
        loop.call((5, flops))
    assert loop.facts == (5, 0, 1)
    assert loop.flops == 300 + 1800
    assert uncounted(loop) == {("a", "prefill"): 1}


def test_a_step_that_goes_another_way_is_not_taken_for_known() -> None:
    """It is given the same, but its layers are not: nothing is known of it, and its layers are named."""
    loop = Loop()
    for _ in range(3):
        loop.call((5, 100))
    call = loop.watch.call(0, (torch.ones(2, 3),), {}, around=False)
    with call, loop.watch.step((torch.ones(2, 5),), {}, lambda: 0):
        loop.watch.note(0, Phase.PREFILL, (torch.ones(2, 4),), {})
        loop.watch.note(1, Phase.DECODE, (torch.ones(2, 4),), {})
    assert loop.facts == (3, 0, 1)
    assert loop.flops == 300
    assert uncounted(loop) == {("a", "prefill"): 1, ("b", "decode"): 1}


def test_work_beside_the_steps_counts_too() -> None:
    """An encoder that `generate` calls by itself: with each call, watched or known."""
    loop = Loop()
    for _ in range(12):
        loop.call((5, 10), (6, 20), around=7)
    assert loop.flops == 12 * 37
    assert loop.watch.facts.known > 0


def test_where_it_cannot_look_away_it_counts_on() -> None:
    """A known step inside a watched call, with another mode in between: it is watched, not counted twice or never."""
    loop = Loop(can_look_away=False)
    for _ in range(12):
        loop.call((5, 10), (6, 20), around=7)
    assert loop.flops == 12 * 37


def test_a_call_that_raises_leaves_nothing() -> None:
    """Neither its own steps nor anything of the next one's."""
    loop = Loop()

    def fail() -> None:
        with loop.watch.call(0, (), {}, around=True):
            loop.step(5, 100)
            with loop.watch.step((torch.ones(1, 9),), {}, lambda: 0):
                loop.hook.work(1000)
                raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it is the test's own
        fail()
    loop.call((5, 100))
    assert loop.facts == (1, 0, 0)
    assert loop.flops == 100


def test_what_cannot_be_watched_is_missed_for_its_reason() -> None:
    """A step that is captured runs nothing of what it was known to do."""
    reasons = iter(["", "captured", "captured"])
    loop = Loop(blind=lambda: next(reasons))
    for length in (5, 5, 6):
        loop.call((length, 100))
    assert loop.watch.why == "captured"
    assert loop.facts == (1, 0, 2)
    assert loop.flops == 100


@pytest.mark.parametrize("given", [object(), [[[[[[[[1]]]]]]]], torch.eye(3).to_sparse()])
def test_arguments_that_tell_nothing_by_their_outside_are_always_watched(given: Any) -> None:
    """An object of the user's own may hold anything."""
    loop = Loop()
    for _ in range(6):
        with loop.watch.call(0, (given,), {}, around=False), loop.watch.step((given,), {}, lambda: 0):
            loop.hook.work(3)
    assert loop.facts == (6, 0, 0)
    assert loop.flops == 18


def test_a_model_that_calls_itself_is_one_step() -> None:
    """The inner pass is part of the outer one."""
    loop = Loop()
    x: Sequence[Any] = (torch.ones(2, 5),)
    with loop.watch.call(0, tuple(x), {}, around=False), loop.watch.step(tuple(x), {}, lambda: 0):
        loop.hook.work(1)
        loop.step(4, 10)
    assert loop.facts == (1, 0, 0)
    assert loop.flops == 11


def test_watched_steps_are_told_by_call_and_decode_step() -> None:
    """So that medians of spans can leave them out."""
    loop = Loop()
    for _ in range(5):
        loop.call((5, 1))
    assert loop.watch.disturbed == {(0, 5), (1, 5), (2, 5), (4, 5)}


def test_what_watching_costs_is_told_by_steps_that_ran_both_ways() -> None:
    """Watched for 3 s each and unwatched for 1 s each: three times as long; unknown where nothing ran both ways."""
    now = [0.0]
    loop = Loop(clock=lambda: now[0])
    for number in range(3):
        loop.call((6 + number, 1))
    assert loop.watch.slowdown() is None
    for _ in range(30):
        given = (torch.ones(2, 5),)
        with loop.watch.call(0, given, {}, around=False), loop.watch.step(given, {}, lambda: 0):
            loop.watch.note(0, Phase.PREFILL, given, {})
            loop.hook.work(1)
            now[0] += 3 if loop.hook.on else 1
    assert loop.watch.slowdown() == pytest.approx(3)
