"""CUDA events for layer boundaries, on a fake GPU whose kernels run when the stream gets to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes import FakeCuda, FakeStream
from layerprof.hooks.events import CHAIN_NS, FIRST_STEPS, EventTimeline
from layerprof.hooks.latency import LatencyHook
from toy_vlm import ToyVlm, measured, total

from layerprof.books.spans import NOT_RECORDED
from layerprof.readings import Layer
from layerprof.records import Phase


def on_gpu(cuda: FakeCuda, costs: dict[str, tuple[int, int]], **options: Any) -> tuple[ToyVlm, LatencyHook]:
    """Return a toy model whose parts launch work (host ns, device ns), and a hook on the fake GPU."""
    model = ToyVlm(lambda what: cuda.work(*costs.get(what, (0, 0))), **options)
    return model, LatencyHook(model, model.located(), device="cuda:0", clock=EventTimeline(0, cuda))


BOUND = {"block": (1_000, 300_000), "vision": (1_000, 500_000), "head": (1_000, 40_000)}
"""Parts whose work takes the GPU far longer than its launch takes the host."""


class TestEvents:
    """On a fake GPU with streams, whose kernels run when the stream gets to them."""

    def test_spans_are_device_times_though_the_host_is_long_gone(self) -> None:
        """When the GPU lags behind, a layer's span is its kernels' time, not its launches'."""
        model, hook = on_gpu(FakeCuda(), BOUND)
        reading = measured(hook, model)
        lengths = {(s.layer.partition(".")[0], s.phase, round((s.end_s - s.start_s) * 1e9)) for s in reading.spans}
        assert ("layers", Phase.DECODE, 300_000) in lengths
        assert ("head", Phase.DECODE, 40_000) in lengths
        assert {n for name, phase, n in lengths if name == "layers" and phase is Phase.DECODE} == {300_000}

    def test_one_synchronise_opens_and_one_ends_a_batch(self) -> None:
        """No layer waits for the device: two waits a batch, whatever its length."""
        cuda = FakeCuda()
        model, hook = on_gpu(cuda, BOUND)
        measured(hook, model, batches=3, new_tokens=20)
        assert cuda.synchronizations == 3 * 2

    def test_neighbouring_blocks_share_their_boundary(self) -> None:
        """The end of a block is the start of the next: n + 1 events for n blocks."""
        cuda = FakeCuda()
        model, hook = on_gpu(cuda, {}, vision=0, blocks=36)
        before = recordings_of(cuda, hook, lambda: model.step(5))
        window, embed, head = 2, 2, 2
        assert before == 37 + window + embed + head

    def test_work_between_blocks_is_not_swallowed(self) -> None:
        """When the host does something long between two blocks they do not share a boundary."""
        cuda = FakeCuda()
        model, hook = on_gpu(cuda, {"block": (1_000, 1_000)}, vision=0, blocks=2)
        with hook, hook.batch(0):
            hidden = model.layers[0](torch.zeros(1, 5, 1))
            cuda.host.advance(2 * CHAIN_NS)
            model.layers[1](hidden)
        reading = hook.reading()
        assert [round((s.end_s - s.start_s) * 1e9) for s in reading.spans] == [2_000, 2_000]
        assert reading.gaps_s["within prefill"] * 1e9 == pytest.approx(2 * CHAIN_NS - 1_000)

    def test_blocks_on_two_streams_do_not_share_their_boundary(self) -> None:
        """A boundary belongs to the stream that the layer works on."""
        cuda = FakeCuda(streams={0: [FakeStream(0), FakeStream(1)]})
        model, hook = on_gpu(cuda, {"block": (1_000, 50_000)}, vision=0, blocks=2)
        with hook, hook.batch(0):
            hidden = model.layers[0](torch.zeros(1, 5, 1))
            cuda.current = 1
            model.layers[1](hidden)
        starts = [round(s.start_s * 1e9) for s in hook.reading().spans]
        lengths = [round((s.end_s - s.start_s) * 1e9) for s in hook.reading().spans]
        assert starts == [0, 1_000], "the second stream is free at once"
        assert lengths == [51_000, 51_000]

    def test_no_event_is_made_inside_a_layer(self) -> None:
        """Events come from the pool; one that runs short is filled up between two steps."""
        cuda = FakeCuda()
        made_inside: list[int] = []

        def spend(what: str) -> None:
            made_inside.append(len(cuda.made)) if what == "block" else None

        model = ToyVlm(spend, vision=0, blocks=4)
        hook = LatencyHook(model, model.located(), device="cuda:0", clock=EventTimeline(0, cuda))
        reading = measured(hook, model, new_tokens=1200)
        assert reading.dropped == 0
        assert sum(s.layer == "layers.3" for s in reading.spans) == 1200
        steps = [made_inside[i : i + 4] for i in range(0, len(made_inside), 4)]
        assert all(len(set(step)) == 1 for step in steps)
        assert len(set(made_inside)) > 1, "the pool had to grow in this batch"

    def test_every_event_is_recorded_before_it_is_needed(self) -> None:
        """CUDA makes an event at its first record, so each is recorded once when the pool is filled."""
        cuda = FakeCuda()
        model, hook = on_gpu(cuda, {})
        with hook:
            assert {event.recorded for event in cuda.made} == {1}
        del model

    def test_events_return_to_the_pool(self) -> None:
        """The second batch of the same length needs no new event."""
        cuda = FakeCuda()
        model, hook = on_gpu(cuda, BOUND)
        with hook:
            made = []
            for number in range(4):
                with hook.batch(number):
                    model.generate(30)
                made.append(len(cuda.made))
        assert len(set(made)) == 1

    def test_nothing_is_recorded_while_a_graph_is_captured(self) -> None:
        """Recording would become part of the graph; such calls are dropped and counted instead."""
        cuda = FakeCuda()
        model, hook = on_gpu(cuda, {"block": (1_000, 2_000)}, vision=0, blocks=3)

        def captured() -> None:
            cuda.is_capturing = True
            model.step(5)
            cuda.is_capturing = False

        with hook, hook.batch(0):
            recorded = sum(event.recorded for event in cuda.made)
            captured()
            assert sum(event.recorded for event in cuda.made) == recorded
            model.step(5)
        reading = hook.reading()
        assert reading.dropped == 5
        assert [s.layer for s in reading.spans] == ["embed", "layers.0", "layers.1", "layers.2", "head"]

    def test_times_and_gaps_are_the_window_on_the_device(self) -> None:
        """Spans and gaps fill the stretch between first and last event; the host's wall is told apart."""
        costs = {**BOUND, "sample": (20_000, 5_000), "merge": (3_000, 9_000), "after": (50_000, 0)}
        model, hook = on_gpu(FakeCuda(), costs)
        reading = measured(hook, model, batches=2)
        assert total(reading) == pytest.approx(sum(reading.windows_s), rel=1e-9)

    def test_long_batches_keep_their_nanoseconds(self) -> None:
        """elapsed_time is a 32-bit float: half an hour into a batch a span of 10 µs must still be 10 µs."""
        cuda = FakeCuda()
        costs = {"block": (0, 10_000), "sample": (1_000_000_000, 0)}
        model = ToyVlm(lambda what: cuda.work(*costs.get(what, (0, 0))), vision=0)
        timeline = EventTimeline(0, Float32Events(cuda))
        hook = LatencyHook(model, model.located(), device="cuda:0", clock=timeline)
        reading = measured(hook, model, new_tokens=1800)
        blocks = [s.end_s - s.start_s for s in reading.spans if s.layer == "layers.1"]
        assert max(abs(s - 10e-6) for s in blocks) < 0.2e-6

    def test_a_failed_batch_gives_its_events_back(self) -> None:
        """After a batch that raised, the next one starts with the whole pool."""
        cuda = FakeCuda()
        model, hook = on_gpu(cuda, BOUND)
        with hook:
            with pytest.raises(ValueError, match="boom"), hook.batch(0):
                failing(model)
            made = len(cuda.made)
            with hook.batch(1):
                model.generate(10)
        assert len(cuda.made) == made
        reading = hook.reading()
        assert len(reading.windows_s) == 1
        assert total(reading) == pytest.approx(sum(reading.windows_s), rel=1e-9)

    def test_layers_on_two_gpus_are_timed_on_their_own(self) -> None:
        """A model spread over two GPUs has events of both; spans lie on one axis."""
        cuda = FakeCuda(streams={0: [FakeStream(0)], 1: [FakeStream(0)]})
        timeline = EventTimeline(0, cuda)
        layers = [Layer(f"layers.{i}", "language", "decoder_layer", i) for i in range(2)]
        starts, ends = timeline.attach(layers, [torch.device("cuda:0"), torch.device("cuda:1")])
        timeline.open()
        log: list[Any] = []
        for slot in range(2):
            log += [slot, Phase.PREFILL, 0, starts[slot]()]
            cuda.work(1_000, 90_000, device=slot)
            log += [~slot, None, 0, ends[slot]()]
        window = timeline.close(log)
        assert window.log[3::4] == [0, 91_000, 1_000, 92_000]

    def test_a_long_answer_finds_events_on_every_gpu(self) -> None:
        """Each GPU's pool grows between steps, so that no layer is dropped however many steps there are."""
        cuda = FakeCuda(streams={0: [FakeStream(0)], 1: [FakeStream(0)]})
        timeline = EventTimeline(0, cuda)
        layers = [Layer(f"layers.{i}", "language", "decoder_layer", i) for i in range(2)]
        starts, ends = timeline.attach(layers, [torch.device("cuda:0"), torch.device("cuda:1")])
        timeline.open()
        marks = []
        for _ in range(5 * FIRST_STEPS):
            for slot in range(2):
                marks.append(starts[slot]())
                cuda.work(1_000, 90_000, device=slot)
                marks.append(ends[slot]())
        assert NOT_RECORDED not in marks


def failing(model: ToyVlm) -> None:
    """Run a batch that fails at its end."""
    model.generate(10)
    raise ValueError("boom")


class Float32Events:
    """The fake GPU with times in 32-bit floats of milliseconds, as CUDA gives them."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cuda, name)

    def event(self) -> Any:
        """Make an event whose elapsed_time is rounded."""
        event = self._cuda.event()
        exact = event.elapsed_time
        event.elapsed_time = lambda end: float(torch.tensor(exact(end), dtype=torch.float32))  # type: ignore[method-assign]
        return event


def recordings_of(cuda: FakeCuda, hook: LatencyHook, run: Any) -> int:
    """Count event recordings in one batch."""
    with hook:
        before = sum(event.recorded for event in cuda.made)
        with hook.batch(0):
            run()
        return sum(event.recorded for event in cuda.made) - before
