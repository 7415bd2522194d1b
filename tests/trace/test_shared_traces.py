"""Real traces of H100, A100 and MI300X with figures known from outside; skipped where they do not lie beside this.

Their synthetic twins stand in `traces_synthetic`, so that a clone alone holds the same facts.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from paths import SHARED_TRACES

from layerprof.records import Phase
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, OUTSIDE, Attribution, Naming

FOLDER = SHARED_TRACES
TRACES = (
    "a100_alexnet",
    "a100_training_graphs",
    "h100_qwen1.5-0.5b-chat",
    "h100_timesformer",
    "h100_vit-classifier",
    "sglang_qwen3-8b_decode.capture",
    "sglang_qwen3-8b_decode.replay",
    "sglang_qwen3-8b_mixed_eager",
    "vllm_gpt-oss_decode_full.capture",
    "vllm_gpt-oss_decode_full.replay",
    "vllm_gpt-oss_piecewise.capture",
    "vllm_gpt-oss_piecewise.replay",
)
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no traces at {FOLDER.name} beside the checkout")


@cache
def read(name: str) -> Attribution:
    """Return the attributed trace."""
    return attribute(FOLDER / f"{name}.json.gz")


@pytest.mark.parametrize("name", TRACES)
def test_the_books_close_in_nanoseconds(name: str) -> None:
    """Rows and buckets are the total, and every event was readable."""
    result = read(name)
    assert result.device == "cuda"
    assert sum(row.self_ns for row in result.rows) + sum(result.buckets_ns.values()) == result.total_ns > 0
    assert result.skipped == 0


@pytest.mark.parametrize("name", TRACES)
def test_no_launch_of_theirs_was_lost(name: str) -> None:
    """Captured launches and fills of no bytes have no record either, and are none that the profiler lost."""
    result = read(name)
    assert result.launched_not_recorded == 0
    assert result.launched_not_recorded_may_be_ns == 0


@pytest.mark.parametrize(
    ("name", "captured"),
    [
        ("sglang_qwen3-8b_decode.capture", 544),
        ("vllm_gpt-oss_decode_full.capture", 421),
        ("h100_qwen1.5-0.5b-chat", 0),
    ],
)
def test_launches_of_a_capture_are_told(name: str, captured: int) -> None:
    """As many as kernels in the replay of the graph."""
    assert read(name).captured == captured


@pytest.mark.parametrize(
    ("name", "bucket", "share"),
    [
        ("h100_qwen1.5-0.5b-chat", NO_LAUNCH, 0.301),
        ("a100_training_graphs", GRAPH, 0.23),
        ("a100_training_graphs", NO_LAUNCH, 0.13),
        ("a100_alexnet", OUTSIDE, 0.0),
    ],
)
def test_buckets_have_the_known_shares(name: str, bucket: str, share: float) -> None:
    """To the digits in which they are known."""
    result = attribute(FOLDER / f"{name}.json.gz", infer=False)
    assert result.buckets_ns[bucket] / result.total_ns == pytest.approx(share, abs=0.005)


def test_orphans_are_the_kernels_of_the_step_before() -> None:
    """509 kernels whose launch lies before the recording began."""
    assert read("h100_qwen1.5-0.5b-chat").orphans == 509


@pytest.mark.parametrize(
    ("name", "total_us", "graph_us"),
    [
        ("sglang_qwen3-8b_decode.replay", 9778.62, 9660),
        ("vllm_gpt-oss_decode_full.replay", None, 10388),
    ],
)
def test_a_replayed_step_has_its_known_length(name: str, total_us: float | None, graph_us: float) -> None:
    """GPU time by an outside tool, in microseconds; of the graph to the digits given."""
    result = attribute(FOLDER / f"{name}.json.gz", infer=False)
    if total_us is not None:
        assert result.total_ns / 1e3 == pytest.approx(total_us, abs=0.1)
    assert result.buckets_ns[GRAPH] / 1e3 == pytest.approx(graph_us, abs=5)


TRACELENS_US = {
    "MergedColumnParallelLinear": 2417.66,
    "RadixAttention": 2301.41,
    "RowParallelLinear": 2064.24,
    "QKVParallelLinear": 903.52,
    "RMSNorm": 683.96,
    "LogitsProcessor": 405.28,
    "Qwen3Attention": 346.65,
    "SiluAndMul": 324.37,
    "RotaryEmbedding": 195.82,
    "Sampler": 53.84,
    "VocabParallelEmbedding": 13.50,
}
"""SGLang's decode step by class of module, in microseconds, by TraceLens with the capture."""


def test_a_captured_graph_has_the_times_that_another_tool_gives() -> None:
    """By class of module, each within half a percent; what no module holds is in the step's own ranges."""
    replay, capture = (FOLDER / f"sglang_qwen3-8b_decode.{kind}.json.gz" for kind in ("replay", "capture"))
    result = attribute(replay, captures=[capture])
    took: Counter[str] = Counter()
    for row in result.rows:
        took[row.name.rpartition("_")[0]] += row.self_ns
    for module, due in TRACELENS_US.items():
        assert took[module] / 1e3 == pytest.approx(due, rel=0.005)
    rest = sum(row.self_ns for row in result.rows if row.name in ("execute", "step"))
    assert (rest + sum(result.buckets_ns.values())) / 1e3 == pytest.approx(68.37, rel=0.005)
    assert result.buckets_ns[GRAPH] < 0.01 * result.total_ns
    assert sum(row.name.startswith("Qwen3DecoderLayer_") for row in result.rows) == 36


@pytest.mark.parametrize("with_capture", [True, False])
@pytest.mark.parametrize(
    ("name", "layers", "graphs"),
    [("sglang_qwen3-8b_decode", 36, 1), ("vllm_gpt-oss_decode_full", 24, 1), ("vllm_gpt-oss_piecewise", 24, 25)],
)
def test_layers_are_inferred_where_no_module_tells_them(
    name: str, layers: int, graphs: int, with_capture: bool
) -> None:
    """As many as the model has, and at least 95 % of what the graphs ran in a layer, the head or the tail."""
    given = [FOLDER / f"{name}.capture.json.gz"] if with_capture else []
    result = attribute(FOLDER / f"{name}.replay.json.gz", captures=given)
    assert sum(use.replays for use in result.graphs) == graphs
    if with_capture and name.startswith("sglang"):
        assert result.stacks == ()
        return
    assert [stack.layers for stack in result.stacks] == [layers]
    inferred = [row for row in result.rows if row.naming == Naming.INFERRED]
    assert {row.name for row in inferred} == {"head", "tail", *(f"layer {number}" for number in range(layers))}
    graph_ns = sum(use.ns for use in result.graphs)
    assert result.buckets_ns[GRAPH] < 0.05 * graph_ns
    assert sum(row.self_ns for row in inferred) >= 0.95 * graph_ns


def test_steps_say_their_requests_and_tokens() -> None:
    """Of vLLM: nine prompts of 8155 tokens beside 37 answers, in one step."""
    (step,) = read("vllm_gpt-oss_piecewise.replay").steps
    assert (step.phase, step.requests) == (Phase.MIXED, 46)
    assert (step.context_requests, step.context_tokens) == (9, 8155)
    assert (step.generation_requests, step.generation_tokens) == (37, 37)
    (decode,) = read("sglang_qwen3-8b_decode.replay").steps
    assert (decode.phase, decode.requests, decode.generation_tokens) == ("decode", 32, 32)
