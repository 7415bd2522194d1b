"""On a CUDA device: decode steps replayed from a graph, their answers, spans and kernels."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from layerprof.hooks.kernels import KernelsHook
from layerprof.hooks.latency import LatencyHook

import layerprof
from layerprof.layers.find import find_layers
from layerprof.models.decode_graph import Steps, graphed_decoder
from layerprof.records import Phase, Run
from layerprof.trace.attribution import GRAPH

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

NEW, PROMPT = 16, 60
BLOCK = "model.language_model.layers.{}"


@pytest.fixture(scope="module")
def demo() -> Any:
    """Load the bundled model in fp16, with the attention that a run has."""
    from importlib.resources import files

    from transformers import Qwen2_5_VLForConditionalGeneration

    folder = str(files("layerprof.demo") / "model")
    make = Qwen2_5_VLForConditionalGeneration.from_pretrained
    return make(folder, dtype=torch.float16, attn_implementation="sdpa").train(False).cuda()


def answer(model: Any, cache: Any = None, seed: int = 0, rows: int = 2) -> Any:
    """Write some tokens, with a static cache of generate's own where none is given."""
    ids = torch.randint(10, 200, (rows, PROMPT), generator=torch.Generator().manual_seed(seed)).cuda()
    held = {"cache_implementation": "static"} if cache is None else {"past_key_values": cache}
    fixed = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "disable_compile": True}
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **held, **fixed)


def graphed(model: Any) -> Any:
    """Replay the model's steps."""
    return graphed_decoder(model, find_layers(model), PROMPT + NEW - 1)


def test_answers_are_the_eager_ones(demo: Any) -> None:
    """Over several prompts and two numbers of rows; captures are made once for each."""
    asked = [(seed, rows) for rows in (2, 1) for seed in range(3)]
    expected = [answer(demo, seed=seed, rows=rows) for seed, rows in asked]
    with graphed(demo) as graphs:
        found = [answer(demo, graphs.cache(rows), seed, rows) for seed, rows in asked]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert graphs.captures == 2
    assert graphs.replays == len(asked) * (NEW - 1) - 2


def test_a_failed_capture_leaves_the_stream_as_it_was(demo: Any) -> None:
    """The error names what raised; torch's current stream is the one before, and the device works on."""
    from layerprof.errors import RunFailedError

    def look(_block: Any, args: Any) -> None:
        args[0].sum().item()

    handle = demo.model.language_model.layers[1].register_forward_pre_hook(look)
    before = torch.cuda.current_stream()
    with pytest.raises(RunFailedError, match="cannot be captured"), graphed(demo) as graphs:
        answer(demo, graphs.cache(2))
    handle.remove()
    assert torch.cuda.current_stream() == before
    assert torch.ones(3, device="cuda").sum().item() == 3


def test_layers_have_spans_in_every_replay(demo: Any) -> None:
    """By events of the graph: each step has its own, and they close against the host's clock."""
    hook = LatencyHook(demo, find_layers(demo), device="cuda:0")
    steps = Steps(hook)
    with graphed(demo) as graphs:
        answer(demo, graphs.cache(2))
        with hook:
            for number in range(4):
                cache = graphs.cache(2)
                with hook.batch(number), graphs.under(steps):
                    answer(demo, cache)
                if number == 0:
                    hook.forget()
    reading = hook.reading()
    assert reading.dropped == 0
    decode = [s for s in reading.spans if s.phase is Phase.DECODE and s.layer == BLOCK.format(1)]
    assert sorted((s.batch, s.step) for s in decode) == [(b, step) for b in range(3) for step in range(1, NEW)]
    placed = math.fsum([*(s.self_s for s in reading.spans), *reading.gaps_s.values()])
    assert placed == pytest.approx(math.fsum(reading.windows_s), rel=0.02)
    prefill = [s for s in reading.spans if s.phase is Phase.PREFILL and s.layer == BLOCK.format(1)]
    lengths = [s.end_s - s.start_s for s in decode]
    assert 0 < median(lengths) < median(s.end_s - s.start_s for s in prefill), "no host stands between its kernels"


def test_kernels_of_a_replay_go_to_the_layer_that_was_captured(demo: Any, tmp_path: Path) -> None:
    """Under one per cent of the replayed work is left in the bucket; every block has its share in decode."""
    layers = find_layers(demo)
    hook = KernelsHook(demo, layers, device="cuda:0", folder=tmp_path)
    with graphed(demo) as graphs:
        answer(demo, graphs.cache(2))
        with hook:
            cache = graphs.cache(2)
            with hook.batch(0), graphs.under(Steps(hook)):
                answer(demo, cache)
    reading = hook.reading()
    blocks = [layer.name for layer in layers if layer.kind == "decoder_layer"]
    assert sum(reading.busy_s.values()) + sum(reading.buckets_s.values()) == pytest.approx(reading.total_s, rel=1e-9)
    assert reading.buckets_s[GRAPH] <= 0.01 * sum(reading.busy_s[name, Phase.DECODE] for name in blocks)
    assert all(reading.calls[name, Phase.DECODE] == NEW - 1 for name in blocks)
    shares = [reading.busy_s[name, Phase.DECODE] for name in blocks]
    assert max(shares) < 1.5 * min(shares), "equal blocks do equal work"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two samples of the bundled model."""
    return layerprof.profile(
        model="demo",
        optimization="graph",
        samples=2,
        dtype="fp16",
        device="cuda",
        max_new_tokens=NEW,
        fixed_tokens=True,
        energy="off",
        output=str(tmp_path_factory.mktemp("runs") / "run"),
    )


def test_a_run_has_every_quantity_of_a_layer_in_decode(run: Run) -> None:
    """Spans, FLOPs and kernels; nothing was captured under the clock, and answers were the same with hooks."""
    assert run.passes["graph"]["graphs"] >= 1
    assert not [told for told in run.warnings if "captured" in told or "otherwise" in told]
    rows = [row for row in run.layers if row.kind == "decoder_layer" and row.phase is Phase.DECODE]
    assert rows
    for row in rows:
        assert row.span_s
        assert row.flops
        assert row.busy_s
        assert row.busy_share
        assert 0.3 < row.busy_share < 1.1, "a replay leaves little idle between a layer's kernels"
