"""On a CUDA device: the main command on the full-size 3B with random fp16 weights."""

from __future__ import annotations

from pathlib import Path

import pytest

import layerprof
from layerprof.records import Phase, Quality, Run

pytestmark = pytest.mark.gpu

NEW_TOKENS = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two samples at batch 1, 224 px, fixed answers."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return layerprof.profile(
        model="qwen2.5-vl-3b",
        weights="random",
        source="bundled",
        samples=2,
        dtype="fp16",
        device="cuda",
        max_new_tokens=NEW_TOKENS,
        fixed_tokens=True,
        output=str(tmp_path_factory.mktemp("runs") / "run"),
    )


def test_full_size_has_every_layer_in_its_phases(run: Run) -> None:
    """3,754,622,976 parameters; 32 vision blocks once, 36 decoder layers in prefill and decode."""
    assert run.model["parameters"] == 3_754_622_976
    counts = {
        (kind, phase): sum(row.kind == kind and row.phase is phase for row in run.layers)
        for kind in ("vision_block", "decoder_layer")
        for phase in Phase
    }
    assert counts["vision_block", Phase.VISION] == 32
    assert counts["decoder_layer", Phase.PREFILL] == counts["decoder_layer", Phase.DECODE] == 36


def test_flops_are_the_closed_form(run: Run) -> None:
    """Decoder layers in decode: 154,140,672 + 8,192 L per row and step (protocol 1.4), 15 steps."""
    prompts = [int(line["prompt_tokens"]) for line in _samples(run)]
    expected = sum(154_140_672 + 8_192 * (length + step) for length in prompts for step in range(1, NEW_TOKENS))
    row = next(row for row in run.layers if row.kind == "decoder_layer" and row.phase is Phase.DECODE)
    assert row.flops == expected
    assert run.ledger.flops.residual == 0


def _samples(run: Run) -> list[dict[str, int]]:
    import json

    lines = (Path(run.settings["output"]) / "samples.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_books_of_time_close(run: Run) -> None:
    """Span residual (events against the host clock) at most 1 %; at least 99.5 % of kernel time in a named bucket."""
    span, busy = run.ledger.span_s, run.ledger.busy_s
    assert span.residual is not None
    assert span.total
    assert abs(span.residual) <= 0.01 * span.total
    assert busy.residual is not None
    assert busy.total
    assert abs(busy.residual) <= 1e-6 * busy.total
    assert busy.rest.get("no launch seen", 0.0) <= 0.005 * busy.total


def test_busy_is_within_span(run: Run) -> None:
    """Kernels of a layer cannot take much longer than its span: both are on the device's clock."""
    for row in run.layers:
        if row.kind in ("vision_block", "decoder_layer"):
            assert row.busy_share is not None
            assert 0 < row.busy_share < 1.1


def test_energy_has_a_label_and_a_source(run: Run) -> None:
    """Joules from the card's counter, attributed to layers; or None with the reason why the card refuses."""
    energy = run.totals.energy
    assert energy.quality in (Quality.MEASURED, Quality.UNAVAILABLE)
    assert (energy.joules is None) == (energy.quality is Quality.UNAVAILABLE)
    assert energy.source or energy.reason


def test_the_roof_is_known(run: Run) -> None:
    """On a card of the table, each layer says which share of its bound it reaches, and none is above it by far."""
    from layerprof.machine.gpus import gpu_by_device_name

    if gpu_by_device_name(run.environment["device_name"]) is None:
        pytest.skip("this card is not in gpus.toml")
    shares = [row.roof_share for row in run.layers if row.kind == "decoder_layer"]
    assert all(share is not None and 0 < share < 1.2 for share in shares)
