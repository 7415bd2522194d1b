"""Real traces of H100, A100 and MI300X with figures known from outside; skipped where they do not lie beside this.

Their synthetic twins stand in `traces_synthetic`, so that a clone alone holds the same facts.
"""

from __future__ import annotations

from functools import cache

import pytest
from paths import SHARED_TRACES

from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, OUTSIDE, Attribution

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
    result = read(name)
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
    result = read(name)
    if total_us is not None:
        assert result.total_ns / 1e3 == pytest.approx(total_us, abs=0.1)
    assert result.buckets_ns[GRAPH] / 1e3 == pytest.approx(graph_us, abs=5)
