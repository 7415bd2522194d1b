"""On a CUDA device: memory by layer from torch's own allocator, closed against a walk without hooks."""

from __future__ import annotations

from pathlib import Path

import pytest

import layerprof
from layerprof.records import Phase, Run

pytestmark = pytest.mark.gpu

NEW_TOKENS = 4
KV_PER_POSITION = 2 * 2 * 128 * 2
"""Keys and values of two heads of 128 in fp16, in one decoder layer of the 3B."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One sample of the full-size 3B with random fp16 weights."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return layerprof.profile(
        model="qwen2.5-vl-3b",
        weights="random",
        source="bundled",
        samples=1,
        dtype="fp16",
        device="cuda",
        max_new_tokens=NEW_TOKENS,
        fixed_tokens=True,
        memory=True,
        trace=False,
        energy="off",
        output=str(tmp_path_factory.mktemp("runs") / "run"),
    )


def test_the_peak_of_the_walk_is_that_of_the_bare_pass(run: Run) -> None:
    """Hooks and a dispatch mode hold no memory of the device's: within 1 % of the unhooked peak."""
    column = run.ledger.memory_bytes
    assert column is not None
    assert column.total == pytest.approx(run.totals.peak_memory_bytes, rel=0.01)
    assert abs(column.residual or 0) <= 0.02 * (column.total or 0)


def test_a_decoder_layer_keeps_its_positions(run: Run) -> None:
    """Prefill keeps the prompt's positions (rounded up to 512 bytes a tensor), decode one more a step."""
    lines = (Path(run.settings["output"]) / "samples.jsonl").read_text().splitlines()
    import json

    prompt = int(json.loads(lines[0])["prompt_tokens"])
    rows = {row.phase: row for row in run.layers if row.kind == "decoder_layer" and row.index == 1}
    kept = rows[Phase.PREFILL].memory_kept_kv_bytes
    assert kept is not None
    assert 0 <= kept - prompt * KV_PER_POSITION < 2 * 512
    assert (rows[Phase.DECODE].memory_kept_kv_bytes or 0) <= KV_PER_POSITION + 2 * 512
