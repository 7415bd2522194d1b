"""The kernels hook on a live model: one range a layer call, books that close, files that stay, nothing left behind."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import FakeClock
from layerprof.hooks import kernels
from layerprof.hooks.kernels import KernelsHook
from layerprof.hooks.recording import Recording
from torch import Tensor, nn
from toy_vlm import ToyVlm

from layerprof.errors import RunFailedError
from layerprof.readings import Layer
from layerprof.records import Phase
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, OUTSIDE


class Multiply(nn.Module):
    """A layer that does one matrix product."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Multiply by a square."""
        size = hidden_states.shape[-1]
        return hidden_states @ torch.ones(size, size)


def toy() -> ToyVlm:
    """Return a toy model whose decoder blocks multiply matrices, while its head does nothing."""
    model = ToyVlm(lambda what: None, vision=1, blocks=2)
    for block in model.layers:
        block.inner = Multiply()
    return model


def hooked(model: ToyVlm, folder: Path) -> KernelsHook:
    """Return a hook on the layers, without what is inside them."""
    return KernelsHook(model, [x for x in model.located() if x.kind != "module"], folder=folder)


def interrupted(hook: KernelsHook) -> None:
    """Open two ranges, then be interrupted."""
    hook.started(0, Phase.VISION)
    hook.started(1, Phase.PREFILL)
    raise KeyboardInterrupt


def recorded(path: Path) -> list[dict[str, Any]]:
    """Events of a packed trace."""
    with gzip.open(path) as stream:
        return list(json.load(stream)["traceEvents"])


class TestRecording:
    """What a recorded batch gives."""

    def test_every_layer_call_is_a_range_of_its_own(self, tmp_path: Path) -> None:
        """Names with the layer, a number never used twice, and the phase; over batches too."""
        model = toy()
        hook = hooked(model, tmp_path)
        with hook:
            for number in range(2):
                with hook.batch(number):
                    model.generate(3)
        names = [
            event["name"]
            for number in range(2)
            for event in recorded(tmp_path / "trace" / f"batch{number}.json.gz")
            if event["name"].startswith("lp:")
        ]
        assert len(names) == len(set(names))
        per_layer = Counter(name.partition("#")[0] for name in names)
        assert per_layer == {"lp:visual.0": 2, "lp:embed": 6, "lp:layers.0": 6, "lp:layers.1": 6, "lp:head": 6}
        assert {"lp:layers.1#0|prefill", "lp:layers.1#1|decode", "lp:layers.1#5|decode"} <= set(names)

    def test_operator_time_is_placed_and_adds_up(self, tmp_path: Path) -> None:
        """Busy seconds by layer and phase, and the bucket for the rest, are the total; products are where they ran."""
        model = toy()
        hook = hooked(model, tmp_path)
        with hook, hook.batch(0):
            model.generate(3)
            torch.ones(64, 64) @ torch.ones(64, 64)
        reading = hook.reading()
        assert sum(reading.busy_s.values()) + sum(reading.buckets_s.values()) == pytest.approx(reading.total_s)
        assert (reading.device, reading.batches) == ("cpu", 1)
        assert reading.calls["layers.0", Phase.DECODE] == 2
        assert "aten::mm" in dict(reading.top["layers.0", Phase.PREFILL])
        assert reading.busy_s["head", Phase.DECODE] == 0.0
        assert reading.host_s["head", Phase.DECODE] > 0
        assert all(0 <= busy <= reading.host_s[key] for key, busy in reading.busy_s.items())
        assert reading.buckets_s[OUTSIDE] > 0
        assert (reading.buckets_s[NO_LAUNCH], reading.buckets_s[GRAPH]) == (0.0, 0.0)

    def test_a_layer_that_calls_a_shared_one_has_its_time_too(self, tmp_path: Path) -> None:
        """A sequence of one part twice: all of the part's time is in the sequence's, whatever the part is called."""
        part = Multiply()
        model = nn.ModuleDict({"part": part, "steps": nn.Sequential(part, part)})
        layers = [Layer(name, "language", "other", i) for i, name in enumerate(("part", "steps"))]
        hook = KernelsHook(model, layers, folder=tmp_path)
        with hook, hook.batch(0):
            model["steps"](torch.ones(1, 3, 4))
        reading = hook.reading()
        own, whole = reading.busy_s, reading.whole_s
        inner, outer = (("part", Phase.PREFILL), ("steps", Phase.PREFILL))
        assert reading.calls == {inner: 2, outer: 1}
        assert whole[inner] == own[inner] > 0
        assert whole[outer] == pytest.approx(own[outer] + own[inner])
        assert reading.host_whole_s[outer] >= reading.host_whole_s[inner] >= whole[inner]

    def test_files_are_named_and_there(self, tmp_path: Path) -> None:
        """For each batch the plain trace and the one for torch-tb-profiler, and no scraps beside them."""
        model = toy()
        hook = hooked(model, tmp_path)
        with hook, hook.batch(4):
            model.generate(2)
        assert set(hook.files) == {"trace_4", "tensorboard_4"}
        assert sorted(hook.files.values()) == sorted((tmp_path / "trace").iterdir())
        assert hook.files["tensorboard_4"].name.endswith(".pt.trace.json.gz")

    def test_record_function_does_where_torch_has_no_cheap_range(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without the private class the public one gives the same calls."""
        monkeypatch.delattr(torch._C._profiler, "_RecordFunctionFast")
        model = toy()
        hook = hooked(model, tmp_path)
        with hook, hook.batch(0):
            model.generate(3)
        ranges = [e for e in recorded(hook.files["trace_0"]) if e["name"].startswith("lp:")]
        assert {event["cat"] for event in ranges} == {"user_annotation"}
        reading = hook.reading()
        assert reading.calls["layers.0", Phase.DECODE] == 2
        assert "aten::mm" in dict(reading.top["layers.0", Phase.PREFILL])

    def test_an_unread_hook_has_an_empty_reading(self, tmp_path: Path) -> None:
        """No batch, no trace, no figures."""
        model = toy()
        hook = hooked(model, tmp_path)
        with hook:
            pass
        assert hook.reading().busy_s == {}
        assert not (tmp_path / "trace").exists()

    def test_a_gpu_run_without_gpu_work_in_its_trace_is_an_error(self, tmp_path: Path) -> None:
        """Where CUPTI is barred, operator times must not pass for kernel times."""
        model = toy()
        hook = hooked(model, tmp_path)
        with hook, hook.batch(0):
            model.generate(2)
        hook._cuda = True
        with pytest.raises(RunFailedError, match="no GPU work"):
            hook.reading()

    def test_a_trace_is_complete_on_every_gpu_of_the_model(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Recording begins and ends with the model's own GPUs idle, whichever one is torch's current one."""
        waited: list[str] = []
        monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
        spread = [SimpleNamespace(device=torch.device(name)) for name in ("cuda:2", "cuda:1", "cpu")]
        model = toy()
        monkeypatch.setattr(model, "parameters", lambda: spread)
        hook = KernelsHook(model, model.located(), device="cuda:1", folder=tmp_path)
        Recording(hook._devices).synchronize()
        assert waited == ["cuda:1", "cuda:2"]


class TestNothingLeftBehind:
    """Failures and the end of recording."""

    def test_a_profiler_that_cannot_start_leaves_no_hook(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A driver that refuses its first recording: the model is as before."""
        model = toy()
        hook = KernelsHook(model, model.located(), device="cuda:0", folder=tmp_path)

        def refuse() -> None:
            raise RuntimeError("CUPTI is not permitted")

        monkeypatch.setattr(hook, "_warm_up", refuse)
        with pytest.raises(RuntimeError, match="not permitted"), hook:
            pass
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_outside_a_batch_no_range_is_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Attached but not recording, a hook opens nothing; removed, it is gone."""
        opened: list[str] = []

        class Range:
            def __init__(self, name: str) -> None:
                opened.append(name)

        monkeypatch.setattr(kernels, "range_class", lambda: Range)
        model = toy()
        hook = hooked(model, tmp_path)
        with hook:
            model.generate(2)
        model.generate(2)
        assert opened == []
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_a_batch_that_raises_closes_its_ranges_and_leaves_no_file(self, tmp_path: Path) -> None:
        """After a failure in a layer the profiler is stopped, and the next batch records as ever."""
        model = toy()

        def fail(what: str) -> None:
            raise ValueError("boom")

        hook = hooked(model, tmp_path)
        spend = model.spend
        with hook:
            model.replace(1, fail)
            with pytest.raises(ValueError, match="boom"), hook.batch(0):
                model.generate(2)
            assert hook.files == {}
            model.replace(1, spend)
            with hook.batch(1):
                model.generate(2)
        assert hook.reading().calls["layers.1", Phase.PREFILL] == 1
        assert hook.reading().batches == 1

    def test_ranges_left_open_by_an_interrupt_are_closed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C runs no forward hook; the ranges that it left open are closed with the batch, innermost first."""
        closed: list[str] = []
        clock = FakeClock()

        class Range:
            def __init__(self, name: str) -> None:
                self.name = name

            def __enter__(self) -> None:
                clock.advance(1)

            def __exit__(self, *_: object) -> None:
                closed.append(self.name)

        monkeypatch.setattr(kernels, "range_class", lambda: Range)
        model = toy()
        hook = hooked(model, tmp_path)
        with hook, pytest.raises(KeyboardInterrupt), hook.batch(0):
            interrupted(hook)
        assert closed == ["lp:embed#0|prefill", "lp:visual.0#0|vision"]

    def test_an_end_without_a_start_is_passed_over(self, tmp_path: Path) -> None:
        """A layer that was entered before recording began ends inside it."""
        model = toy()
        hook = hooked(model, tmp_path)
        with hook, hook.batch(0):
            hook.ended(0)
            model.generate(2)
        assert hook.reading().calls["visual.0", Phase.VISION] == 1
