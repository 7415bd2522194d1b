"""On a CUDA device: spans by real events, on real streams."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest
from layerprof.hooks.latency import LatencyHook

from layerprof.layers.find import find_layers
from layerprof.readings import SpanReading
from layerprof.records import Phase

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from sleeping import sleepers  # noqa: E402 - needs torch, which may be missing

CYCLES = 2_000_000
"""Of the GPU's clock: about a millisecond, far above the resolution of events."""


def seconds(reading: SpanReading, name: str) -> float:
    """Median span of a layer."""
    return median(s.end_s - s.start_s for s in reading.spans if s.layer == name)


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the bundled model on the GPU, and seeded inputs."""
    from importlib.resources import files

    from transformers import Qwen2_5_VLForConditionalGeneration

    folder = str(files("layerprof.demo") / "model")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float16).train(False).cuda()
    image, generator = model.config.image_token_id, torch.Generator().manual_seed(0)
    ids = torch.tensor([[image] * 64 + torch.randint(10, 200, (40,), generator=generator).tolist()])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(256, 1176, generator=generator).half(),
        "image_grid_thw": torch.tensor([[1, 16, 16]]),
        "mm_token_type_ids": (ids == image).int(),
    }
    yield model, {name: tensor.cuda() for name, tensor in inputs.items()}
    del model
    torch.cuda.empty_cache()


def answer(demo: tuple[Any, dict[str, Any]], tokens: int = 32) -> Any:
    """Generate a fixed number of tokens, greedily."""
    model, inputs = demo
    fixed = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "disable_compile": True}
    return model.generate(**inputs, **fixed)


def test_spans_are_the_devices_not_the_hosts() -> None:
    """The host returns at once; a layer that spins three times as long has three times the span."""
    model, layers = sleepers(CYCLES, 3 * CYCLES)
    hidden = torch.zeros(1, 4, 8, device="cuda")
    model(hidden)
    hook = LatencyHook(model, layers, device="cuda:0")
    with hook:
        for number in range(5):
            with hook.batch(number):
                model(hidden)
    reading = hook.reading()
    assert seconds(reading, "1") / seconds(reading, "0") == pytest.approx(3, rel=0.1)
    assert reading.clock == "CUDA events"


def test_layers_on_a_side_stream_are_timed_there() -> None:
    """The current stream of the layer's call is where its events go."""
    model, layers = sleepers(CYCLES, CYCLES)
    hidden = torch.zeros(1, 4, 8, device="cuda")
    model(hidden)
    side = torch.cuda.Stream()
    hook = LatencyHook(model, layers, device="cuda:0")
    with hook, hook.batch(0), torch.cuda.stream(side):
        model(hidden)
    reading = hook.reading()
    assert reading.dropped == 0
    assert seconds(reading, "0") == pytest.approx(seconds(reading, "1"), rel=0.2)


def test_nothing_is_recorded_in_a_graph_capture() -> None:
    """A captured layer is dropped and counted; capture and replay work as without hooks."""
    model, layers = sleepers(1000)
    hidden = torch.ones(1, 4, 8, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        model(hidden)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    hook = LatencyHook(model, layers, device="cuda:0")
    with hook, hook.batch(0):
        with torch.cuda.graph(graph):
            out = model(hidden)
        graph.replay()
        torch.cuda.synchronize()
    assert hook.reading().dropped == 1
    assert torch.equal(out, hidden)


def test_books_close_against_the_hosts_clock(demo: tuple[Any, dict[str, Any]]) -> None:
    """Spans and gaps, by events, are the host's wall time within one per cent."""
    model, _ = demo
    answer(demo)
    hook = LatencyHook(model, find_layers(model), device="cuda:0")
    with hook:
        for number in range(4):
            with hook.batch(number):
                answer(demo)
    reading = hook.reading()
    placed = math.fsum([*(s.self_s for s in reading.spans), *reading.gaps_s.values()])
    assert placed == pytest.approx(math.fsum(reading.windows_s), rel=0.01)
    assert reading.dropped == 0
    decode = [s for s in reading.spans if s.phase is Phase.DECODE and s.layer == "model.language_model.layers.0"]
    assert len(decode) == 4 * 31


def test_answers_do_not_change(demo: tuple[Any, dict[str, Any]]) -> None:
    """The model answers the same with hooks as without, and has none afterwards."""
    model, _ = demo
    bare = answer(demo)
    hook = LatencyHook(model, find_layers(model), device="cuda:0")
    with hook, hook.batch(0):
        hooked = answer(demo)
    assert torch.equal(bare, hooked)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
