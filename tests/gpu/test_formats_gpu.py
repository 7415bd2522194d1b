"""On a CUDA device: weights in other formats, and an attention for each tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import layerprof
from layerprof.records import BLOCK_KINDS, Run

pytestmark = pytest.mark.gpu

PACKAGES = {"int8": "torchao", "fp8": "torchao", "int4": "torchao", "nf4": "bitsandbytes"}
BYTES = {"int8": (0.5, 0.6), "fp8": (0.5, 0.6), "int4": (0.25, 0.4), "nf4": (0.25, 0.35)}
"""Stored bytes of a matrix over those in bf16: codes alone, and with what scales and paddings may come to."""


def _profiled(folder: Path, **asked: Any) -> Run:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    common: dict[str, Any] = {"samples": 2, "max_new_tokens": 4, "fixed_tokens": True, "energy": "off", "trace": False}
    common |= {"model": "demo", "source": "bundled", "device": "cuda", "dtype": "bf16"}
    return layerprof.profile(**common, **asked, output=str(folder / "run"))


@pytest.fixture(scope="module")
def as_it_is(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run of the bundled model in bf16."""
    return _profiled(tmp_path_factory.mktemp("runs"))


def _blocks(run: Run) -> int:
    return sum(row.bytes_weights or 0 for row in run.layers if row.kind in BLOCK_KINDS)


@pytest.mark.parametrize("name", list(PACKAGES))
def test_weights_in_a_format_do_the_same_work_from_fewer_bytes(name: str, as_it_is: Run, tmp_path: Path) -> None:
    """All matrix work is counted, and blocks read what their codes and scales come to."""
    pytest.importorskip(PACKAGES[name])
    run = _profiled(tmp_path, quantization=name)
    assert run.totals.flops == as_it_is.totals.flops
    assert run.ledger.flops.residual == 0
    assert not run.ledger.flops.not_counted
    low, high = BYTES[name]
    assert low < _blocks(run) / _blocks(as_it_is) < high
    assert {row.weights_dtype.split(" ")[0] for row in run.layers if row.kind in BLOCK_KINDS and row.weights_dtype} == {
        name
    }


def test_each_tower_runs_the_attention_that_it_was_given(as_it_is: Run, tmp_path: Path) -> None:
    """What ran is read back from the model, and does the same work."""
    run = _profiled(tmp_path, attention="vision=sdpa,language=eager")
    assert run.model["attention"] == {"vision": "sdpa", "language": "eager"}
    assert run.totals.flops == as_it_is.totals.flops


def test_flash_attention_runs_in_one_tower_alone(as_it_is: Run, tmp_path: Path) -> None:
    """Its packed lengths give the same work as sdpa's masks."""
    pytest.importorskip("flash_attn")
    run = _profiled(tmp_path, attention="vision=flash,language=sdpa")
    assert run.model["attention"] == {"vision": "flash", "language": "sdpa"}
    assert run.totals.flops == as_it_is.totals.flops
