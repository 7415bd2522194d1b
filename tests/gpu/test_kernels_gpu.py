"""On a CUDA device: real kernels, attributed by their launches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from layerprof.hooks.kernels import KernelsHook
from layerprof.hooks.memory import MemoryHook

from layerprof.layers.find import find_layers
from layerprof.records import Phase
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, Naming

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from sleeping import sleepers  # noqa: E402 - needs torch, which may be missing

LONG = 20_000_000
"""Cycles of the GPU's clock, about ten milliseconds: the host is far ahead by then."""


@pytest.fixture(scope="module")
def demo() -> Any:
    """Load the bundled model in fp16."""
    from importlib.resources import files

    from transformers import Qwen2_5_VLForConditionalGeneration

    folder = str(files("layerprof.demo") / "model")
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float16).train(False).cuda()


def answer(model: Any) -> Any:
    """Write 16 tokens in two rows."""
    ids = torch.arange(10, 130, device="cuda").reshape(2, 60)
    fixed = {"max_new_tokens": 16, "min_new_tokens": 16, "do_sample": False, "disable_compile": True}
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **fixed)


def test_a_trace_changes_no_answer_and_is_remembered(demo: Any, tmp_path: Path) -> None:
    """CUPTI stays attached and slows launches from then on, so the process knows that it has recorded."""
    before = answer(demo)
    hook = KernelsHook(demo, find_layers(demo), device="cuda:0", folder=tmp_path)
    with hook, hook.batch(0):
        assert torch.equal(answer(demo), before)
    assert KernelsHook.recorded_before()
    assert torch.equal(answer(demo), before)


def test_a_kernel_goes_to_the_layer_that_launched_it(tmp_path: Path) -> None:
    """The second layer is open while the first one's kernel runs; the time is the first one's all the same."""
    model, layers = sleepers(LONG, LONG // 20)
    hidden = torch.zeros(1, 4, 8, device="cuda")
    model(hidden)
    hook = KernelsHook(model, layers, device="cuda:0", folder=tmp_path)
    with hook, hook.batch(0):
        model(hidden)
    reading = hook.reading()
    assert reading.device == "cuda"
    ratio = reading.busy_s["0", Phase.PREFILL] / reading.busy_s["1", Phase.PREFILL]
    assert ratio == pytest.approx(20, rel=0.1)
    assert sum(reading.busy_s.values()) == pytest.approx(reading.total_s, rel=0.01)


def test_all_kernel_time_has_a_place(demo: Any, tmp_path: Path) -> None:
    """Of a real answer at least 99.5 % of kernel time has a known launch; rows and buckets are the total."""
    answer(demo)
    hook = KernelsHook(demo, find_layers(demo), device="cuda:0", folder=tmp_path)
    with hook, hook.batch(0):
        answer(demo)
    reading = hook.reading()
    assert sum(reading.busy_s.values()) + sum(reading.buckets_s.values()) == pytest.approx(reading.total_s, rel=1e-9)
    assert reading.buckets_s[NO_LAUNCH] <= 0.005 * reading.total_s
    assert (reading.lost.launches, reading.lost.may_be_s) == (0, 0.0)
    assert reading.calls["model.language_model.layers.3", Phase.DECODE] == 15
    assert all(reading.busy_s[layer, phase] > 0 for layer, phase in reading.busy_s if "layers" in layer)


def test_no_session_loses_a_launch(demo: Any, tmp_path: Path) -> None:
    """CUPTI loses the first records of a session after the GPU was idle, more in each: none of them is the model's."""
    for number in range(4):
        time.sleep(2)
        hook = KernelsHook(demo, find_layers(demo), device="cuda:0", folder=tmp_path / str(number))
        with hook, hook.batch(0):
            answer(demo)
        lost = hook.reading().lost
        assert lost.of > 1000
        assert lost.launches == 0


def test_captured_launches_are_not_called_lost(tmp_path: Path) -> None:
    """A graph is captured while recording: its launches run nothing until it is replayed, and are the layer's then."""
    model, layers = sleepers(LONG // 100)
    hidden = torch.ones(1, 4, 8, device="cuda")
    model(hidden)
    graph = torch.cuda.CUDAGraph()
    hook = KernelsHook(model, layers, device="cuda:0", folder=tmp_path)
    with hook, hook.batch(0):
        with torch.cuda.graph(graph):
            model(hidden)
        graph.replay()
    result = attribute(hook.files["trace_0"])
    assert result.launched_not_recorded == 0
    assert result.captured >= 2
    assert result.buckets_ns[GRAPH] == 0
    assert [row.name for row in result.rows if row.naming is Naming.CAPTURED] == ["0"]


def test_graph_replays_are_in_their_bucket(tmp_path: Path) -> None:
    """A replay of a graph that was captured before cannot be told apart by layer: its kernels are in a bucket."""
    model, layers = sleepers(LONG // 10)
    hidden = torch.ones(1, 4, 8, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        model(hidden)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(hidden)
    hook = KernelsHook(model, layers, device="cuda:0", folder=tmp_path)
    with hook, hook.batch(0):
        graph.replay()
    reading = hook.reading()
    assert reading.buckets_s[GRAPH] == pytest.approx(reading.total_s, rel=0.01)


def test_the_plugin_shows_the_same_device_time(tmp_path: Path) -> None:
    """torch-tb-profiler's Module view of the rewritten trace has each layer with its busy time."""
    data = pytest.importorskip("torch_tb_profiler.profiler.data")
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    model, layers = sleepers(LONG // 10, LONG // 5)
    hidden = torch.zeros(1, 4, 8, device="cuda")
    model(hidden)
    hook = KernelsHook(model, layers, device="cuda:0", folder=tmp_path)
    with hook, hook.batch(0):
        model(hidden)
    parsed = data.RunProfileData.parse("w", "1", str(hook.files["tensorboard_0"]), str(tmp_path))
    rows = RunGenerator("w", "1", parsed).generate_run_profile().get_module_view()["data"]
    expected = {row.name: row.self_ns / 1e3 for row in attribute(hook.files["trace_0"]).rows}
    assert {row["name"]: row["device_duration"] for row in rows} == pytest.approx(expected, rel=1e-3)


def test_peak_memory_is_what_was_allocated() -> None:
    """The peak holds the largest tensor alive inside the block, though it is gone at the end."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    memory = MemoryHook("cuda:0")
    with memory:
        large = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
        del large
    peak = memory.reading()
    assert peak is not None
    assert peak - before >= 256 << 20
    assert peak - before < 260 << 20
