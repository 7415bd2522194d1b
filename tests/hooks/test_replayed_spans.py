"""Spans of layers inside a replayed CUDA graph, by events that are part of the graph, on a fake GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes import FakeCuda, FakeEvent
from layerprof.hooks.base import LayerHook
from layerprof.hooks.events import EventTimeline
from layerprof.hooks.latency import LatencyHook
from toy_vlm import ToyVlm, total

from layerprof.records import Phase

BLOCKS = 4
COSTS = {"block": (1_000, 20_000), "embed": (500, 2_000), "head": (1_000, 9_000), "sample": (3_000, 1_000)}
TOKEN = torch.zeros(1, 1, 1)


class Replaying:
    """A toy model on a fake GPU whose blocks are replayed in decode, under a hook that is told."""

    def __init__(self) -> None:
        self.cuda = FakeCuda()
        self.model = ToyVlm(lambda what: self.cuda.work(*COSTS.get(what, (0, 0))), vision=0, blocks=BLOCKS)
        timeline = EventTimeline(0, self.cuda)
        self.hook = LatencyHook(self.model, self.model.located(), device="cuda:0", clock=timeline)

    def blocks(self) -> None:
        """Call every block for one position."""
        hidden: Any = TOKEN
        for block in self.model.layers:
            hidden = block(hidden)

    def capture(self) -> Any:
        """Capture a step, after a prompt."""
        with self.hook.captured() as told:
            self.cuda.is_capturing = True
            self.blocks()
            self.cuda.is_capturing = False
        return told

    def replay(self, told: Any) -> None:
        """Decode one step."""
        self.model.spend("sample")
        hidden = self.model.embed(TOKEN)
        with self.hook.replayed(told):
            self.cuda.replay(2_000)
        self.model.head(hidden)

    def slow_down(self, times: int) -> None:
        """Let what is captured take longer from now on."""
        self.cuda.program = [part * times if isinstance(part, int) else part for part in self.cuda.program]

    def lengths(self, layer: str) -> list[tuple[Phase, int, int]]:
        """Return phase, step and nanoseconds of each call of a layer."""
        spans = [s for s in self.hook.reading().spans if s.layer == layer]
        return [(s.phase, s.step, round((s.end_s - s.start_s) * 1e9)) for s in spans]


def test_each_replay_has_times_of_its_own() -> None:
    """Every replay records the same events anew: they are read before that, and each step keeps its own spans."""
    toy = Replaying()
    with toy.hook, toy.hook.batch(0):
        toy.model.step(5)
        told = toy.capture()
        for times in (1, 2, 3):
            toy.slow_down(times)
            toy.replay(told)
    decode = [(Phase.DECODE, 1, 20_000), (Phase.DECODE, 2, 40_000), (Phase.DECODE, 3, 120_000)]
    for number in range(BLOCKS):
        assert toy.lengths(f"layers.{number}") == [(Phase.PREFILL, 0, 20_000), *decode]
    assert toy.hook.reading().dropped == 0


def test_steps_go_on_for_the_layers_around() -> None:
    """The head and the embedding, which are called as ever, are in the same steps; the capture is none."""
    toy = Replaying()
    with toy.hook, toy.hook.batch(0):
        toy.model.step(5)
        told = toy.capture()
        for _ in range(3):
            toy.replay(told)
    for name in ("embed", "head"):
        assert [(phase, step) for phase, step, _ in toy.lengths(name)] == [
            (Phase.PREFILL, 0),
            *((Phase.DECODE, step) for step in (1, 2, 3)),
        ]


def test_times_and_gaps_are_the_window() -> None:
    """Of a batch with replays too: what lies between two replays is a gap, and nothing is counted twice."""
    toy = Replaying()
    with toy.hook:
        with toy.hook.batch(0):
            toy.model.step(5)
            told = toy.capture()
            for _ in range(40):
                toy.replay(told)
        with toy.hook.batch(1):
            toy.model.step(5)
            for _ in range(40):
                toy.replay(told)
    reading = toy.hook.reading()
    assert total(reading) == pytest.approx(sum(reading.windows_s), rel=1e-9)
    assert len([s for s in reading.spans if s.layer == "layers.2" and s.batch == 1]) == 41
    assert reading.gaps_s["between decode steps"] > 0


def test_neighbours_share_their_boundary_in_a_graph() -> None:
    """There are n + 1 events for n blocks, of the kind that a graph records."""
    toy = Replaying()
    with toy.hook, toy.hook.batch(0):
        toy.model.step(5)
        told = toy.capture()
        toy.replay(told)
    assert len(told.events) == BLOCKS + 1
    assert [isinstance(part, FakeEvent) for part in toy.cuda.program] == [True, *[False, True] * BLOCKS]


def test_a_long_answer_finds_events_for_its_replays() -> None:
    """The pool grows between steps, though no block is called that could ask it to."""
    toy = Replaying()
    with toy.hook, toy.hook.batch(0):
        toy.model.step(5)
        told = toy.capture()
        for _ in range(3_000):
            toy.replay(told)
    assert toy.hook.reading().dropped == 0
    assert len(toy.lengths("layers.3")) == 3_001


def fails_after(toy: Replaying, told: Any) -> None:
    """Replay a step, then raise."""
    toy.model.step(5)
    toy.replay(told)
    raise ValueError("boom")


def test_a_batch_that_failed_leaves_no_replay_behind() -> None:
    """The next one begins with none to read."""
    toy = Replaying()
    with toy.hook:
        with toy.hook.batch(0):
            toy.model.step(5)
            told = toy.capture()
        with pytest.raises(ValueError, match="boom"), toy.hook.batch(0):
            fails_after(toy, told)
        with toy.hook.batch(1):
            toy.model.step(5)
            toy.replay(told)
    assert [step for _, step, _ in toy.lengths("layers.0")] == [0, 0, 1]


def test_what_was_rehearsed_is_forgotten() -> None:
    """Batches before `forget` are in no reading; what was captured in them can be replayed."""
    toy = Replaying()
    with toy.hook:
        with toy.hook.batch(0):
            toy.model.step(5)
            told = toy.capture()
        toy.hook.forget()
        with toy.hook.batch(0):
            toy.model.step(5)
            toy.replay(told)
    assert len(toy.hook.reading().windows_s) == 1
    assert toy.lengths("layers.1") == [(Phase.PREFILL, 0, 20_000), (Phase.DECODE, 1, 20_000)]


def test_on_a_host_clock_replays_have_no_spans() -> None:
    """Work that is captured tells the host's clock nothing: neither the capture nor a replay is a call."""
    model = ToyVlm(lambda what: None, vision=0, blocks=2)
    hook = LatencyHook(model, model.located())
    with hook, hook.batch(0):
        model.step(5)
        with hook.captured() as told:
            for block in model.layers:
                block(TOKEN)
        model.embed(TOKEN)
        with hook.replayed(told):
            pass
        model.head(TOKEN)
    calls = [(s.layer, s.phase, s.step) for s in hook.reading().spans]
    assert [layer for layer, phase, _ in calls if phase is Phase.DECODE] == ["embed", "head"]
    assert calls[-1] == ("head", Phase.DECODE, 1)


def test_any_hook_can_be_told() -> None:
    """A capture counts no step, a replay does; outside a batch neither does anything."""
    model = ToyVlm(lambda what: None, vision=0, blocks=2)
    hook = LayerHook(model, model.located())
    with hook:
        with hook.replayed(None):
            assert (hook.tracker.step, hook.tracker.phase) == (0, Phase.PREFILL)
        with hook.batch(0):
            model.step(5)
            with hook.captured() as told:
                model.layers[0](TOKEN)
                assert hook.tracker.phase is Phase.DECODE
            with hook.replayed(told):
                assert (hook.tracker.step, hook.tracker.phase) == (1, Phase.DECODE)
