"""The latency hook on a fake clock: spans of known length, gaps by name, nothing left behind, and books that close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fakes import FakeClock
from hooks_left import hooks_on
from layerprof.hooks.latency import LatencyHook
from toy_vlm import ToyVlm, measured, total

from layerprof.errors import RequestError
from layerprof.readings import SpanReading
from layerprof.records import Phase

COST = {"vision": 70, "embed": 3, "rotary": 2, "block": 50, "inner": 20, "head": 11}
COST |= {"before": 100, "merge": 40, "sample": 13, "after": 9}
"""Nanoseconds of each part of the toy model."""


def on_host(**options: Any) -> tuple[ToyVlm, LatencyHook, FakeClock]:
    """Return a toy model that spends COST on a fake clock, and a hook with that clock."""
    clock = FakeClock()
    model = ToyVlm(lambda what: clock.advance(COST[what]), **options)
    return model, LatencyHook(model, model.located(), clock=clock), clock


class TestHostClock:
    """On a clock that only moves when told, every figure is known."""

    def test_spans_have_the_length_that_their_layer_took(self) -> None:
        """A span lasts as long as its layer, in every phase, and each layer has one span per call."""
        model, hook, _ = on_host()
        reading = measured(hook, model, new_tokens=4)
        lengths = {(s.layer.partition(".")[0], round((s.end_s - s.start_s) * 1e9)) for s in reading.spans}
        assert lengths == {("visual", 70), ("embed", 3), ("layers", 50), ("head", 11)}
        counts = Counter((s.layer, s.phase) for s in reading.spans)
        assert counts["visual.1", Phase.VISION] == 1
        assert counts["layers.2", Phase.PREFILL] == 1
        assert counts["layers.2", Phase.DECODE] == 3
        assert counts["head", Phase.DECODE] == 3

    def test_gaps_are_named_by_where_they_fell(self) -> None:
        """Each stretch under no layer goes to the name of its place, and adds up over steps and batches."""
        model, hook, _ = on_host()
        reading = measured(hook, model, batches=2, new_tokens=4)
        nanoseconds = {name: round(s * 1e9) for name, s in reading.gaps_s.items()}
        assert nanoseconds == {
            "before the first layer": 2 * 100,
            "vision to prefill": 2 * 40,
            "within prefill": 2 * 2,
            "prefill to decode": 2 * 13,
            "between decode steps": 2 * 2 * 13,
            "within decode": 2 * 3 * 2,
            "after the last layer": 2 * 9,
        }

    def test_self_times_and_gaps_are_the_window(self) -> None:
        """Nothing is counted twice and nothing is lost, with layers inside layers too."""
        model, hook, _ = on_host(inner=True)
        reading = measured(hook, model, batches=3)
        one = 100 + 2 * 70 + 40 + 3 * (3 + 2 + 3 * 70 + 11) + 2 * 13 + 9
        assert [round(w * 1e9) for w in reading.windows_s] == [one] * 3
        assert total(reading) == pytest.approx(3 * one / 1e9, abs=1e-15)
        assert reading.dropped == 0

    def test_a_submodule_that_was_asked_for_is_timed_inside_its_layer(self) -> None:
        """Its 20 ns stand in its own row; the 70 of the layer around it stay the layer's."""
        model, hook, _ = on_host(inner=True)
        reading = measured(hook, model)
        block = next(s for s in reading.spans if s.layer == "layers.0")
        inner = next(s for s in reading.spans if s.layer == "layers.0.inner")
        assert round((block.end_s - block.start_s) * 1e9) == round(block.self_s * 1e9) == 70
        assert (round((inner.end_s - inner.start_s) * 1e9), inner.self_s) == (20, 0)
        assert (block.around, inner.around) == ((), ("layers.0",))

    def test_starts_are_counted_from_the_window(self) -> None:
        """Every batch's spans start again near zero: `start_s` is relative to the batch."""
        model, hook, clock = on_host()
        with hook:
            for number in range(2):
                clock.advance(10**9)
                with hook.batch(number):
                    model.generate(2)
        first = [s for s in hook.reading().spans if s.layer == "visual.0"]
        assert [(s.batch, round(s.start_s * 1e9)) for s in first] == [(0, 100), (1, 100)]

    def test_decode_steps_count_from_one_and_take_their_embedding_along(self) -> None:
        """A step begins with its token embedding, though the embedding runs before the block that counts steps."""
        model, hook, _ = on_host()
        reading = measured(hook, model, new_tokens=4)
        for name in ("embed", "layers.0", "head"):
            assert [s.step for s in reading.spans if s.layer == name and s.phase is Phase.DECODE] == [1, 2, 3]

    def test_a_window_without_layers_is_one_gap(self) -> None:
        """A batch in which no located layer ran has its whole time under that name."""
        model, hook, clock = on_host()
        with hook, hook.batch(0):
            clock.advance(77)
        reading = hook.reading()
        assert reading.spans == ()
        assert reading.gaps_s == pytest.approx({"no layer ran": 77e-9})
        del model

    def test_no_batches_is_an_empty_reading(self) -> None:
        """Reading a hook that saw nothing is no error."""
        _, hook, _ = on_host()
        with hook:
            pass
        assert hook.reading() == SpanReading((), (), {}, "fake clock")

    def test_calls_outside_a_batch_are_not_timed(self) -> None:
        """Whoever runs the attached model between two batches finds nothing of it in the reading."""
        model, hook, _ = on_host()
        with hook:
            model.generate(2)
            with hook.batch(0):
                model.generate(2)
            model.generate(2)
        reading = hook.reading()
        assert len(reading.windows_s) == 1
        assert sum(s.layer == "layers.0" for s in reading.spans) == 2

    def test_batches_do_not_nest(self) -> None:
        """A batch inside a batch is a mistake of the caller, told at once."""
        _, hook, _ = on_host()
        with hook, hook.batch(0), pytest.raises(RuntimeError, match="open already"), hook.batch(1):
            pass


class TestFailures:
    """Models and users that fail leave neither hooks nor stale state."""

    def test_a_layer_that_raises_is_closed_and_the_batch_is_given_up(self) -> None:
        """The failed batch leaves no trace, and the next one is as if it had never been."""
        model, hook, clock = on_host()
        fail = {"now": True}

        def spend(what: str) -> None:
            clock.advance(COST[what])
            if what == "block" and fail["now"]:
                raise ValueError("boom")

        model.replace(1, spend)
        with hook:
            with pytest.raises(ValueError, match="boom"), hook.batch(0):
                model.generate(2)
            fail["now"] = False
            with hook.batch(1):
                model.generate(2)
        reading = hook.reading()
        assert len(reading.windows_s) == 1
        assert {s.batch for s in reading.spans} == {0}
        assert reading.dropped == 0
        assert total(reading) == pytest.approx(reading.windows_s[0], abs=1e-15)

    def test_a_model_that_catches_its_layers_error_goes_on(self) -> None:
        """A layer that raised inside a model that copes has a span up to its end, and the books close."""
        model, hook, clock = on_host()

        def spend(what: str) -> None:
            clock.advance(COST[what])
            raise ValueError("boom")

        model.replace(0, spend)
        with hook, hook.batch(0):
            with pytest.raises(ValueError, match="boom"):
                model.step(5)
            clock.advance(1000)
        reading = hook.reading()
        assert [round(s.self_s * 1e9) for s in reading.spans if s.layer == "layers.0"] == [50]
        assert total(reading) == pytest.approx(reading.windows_s[0], abs=1e-15)

    def test_an_interrupt_inside_a_layer_gives_the_batch_up(self) -> None:
        """Ctrl-C runs no forward hook; the batches before it stay, the hooks go."""
        model, hook, _ = on_host()

        def interrupt(what: str) -> None:
            raise KeyboardInterrupt

        with hook:
            with hook.batch(0):
                model.generate(2)
            model.replace(0, interrupt)
            with pytest.raises(KeyboardInterrupt), hook.batch(1):
                model.generate(2)
        assert len(hook.reading().windows_s) == 1
        assert hooks_on(model) == 0

    def test_a_call_that_never_ends_is_counted_as_dropped(self) -> None:
        """A start without an end is dropped and counted; what ran inside it stands on its own."""
        model, hook, clock = on_host()
        with hook, hook.batch(0):
            hook.started(2, Phase.PREFILL)
            clock.advance(5)
            model.layers[0](torch.zeros(1, 5, 1))
        reading = hook.reading()
        assert reading.dropped == 1
        assert [(s.layer, round(s.self_s * 1e9)) for s in reading.spans] == [("layers.0", 50)]
        assert total(reading) == pytest.approx(reading.windows_s[0], abs=1e-15)

    def test_an_end_without_a_start_is_counted_as_dropped(self) -> None:
        """A layer that was entered before the batch opened leaves an end alone."""
        _, hook, clock = on_host()
        with hook, hook.batch(0):
            clock.advance(5)
            hook.ended(0)
        assert hook.reading().dropped == 1

    def test_a_generator_that_is_left_early_is_a_whole_batch(self) -> None:
        """Stopping a token stream half-way ends the batch there; its calls count."""
        model, hook, _ = on_host()

        def stream() -> Iterator[int]:
            for number in range(100):
                model.step(5 if number == 0 else 1)
                yield number

        with hook, hook.batch(0):
            for number in stream():
                if number == 2:
                    break
        reading = hook.reading()
        assert [s.step for s in reading.spans if s.layer == "layers.0"] == [0, 1, 2]
        assert reading.dropped == 0

    def test_all_hooks_are_removed(self) -> None:
        """After the block the model has the hooks it had before."""
        model, hook, _ = on_host()
        measured(hook, model)
        assert hooks_on(model) == 0

    def test_a_forward_that_stood_on_the_instance_comes_back(self) -> None:
        """What accelerate or a user put in place of a layer's `forward` is timed, and is there again afterwards."""
        model, hook, clock = on_host()
        own: Any = model.layers[1].forward
        said = []

        def theirs(hidden_states: torch.Tensor) -> Any:
            said.append("theirs")
            clock.advance(1000)
            return own(hidden_states)

        model.layers[1].forward = theirs
        reading = measured(hook, model)
        assert said == ["theirs"] * 3
        assert {round(s.self_s * 1e9) for s in reading.spans if s.layer == "layers.1"} == {1050}
        assert model.layers[1].forward is theirs

    def test_what_others_lay_around_our_hook_is_left_to_them(self) -> None:
        """A wrapper that was put on during the block, and lives longer, keeps working; nothing is timed in it."""
        model, hook, clock = on_host()
        with hook:
            ours = model.layers[0].forward
            model.layers[0].forward = lambda hidden_states: 1 * ours(hidden_states)
            theirs = model.layers[0].forward
        assert model.layers[0].forward is theirs
        before = clock()
        model.generate(1)
        assert clock() > before
        assert hook.reading().spans == ()

    @pytest.mark.parametrize("device", ["mps", "xpu:0", "meta", "gpu"])
    def test_a_device_without_a_clock_is_refused(self, device: str) -> None:
        """Host times of a device that works by itself would be wrong, so none are given."""
        model, _, _ = on_host()
        with pytest.raises(RequestError, match=device):
            LatencyHook(model, model.located(), device=device)
