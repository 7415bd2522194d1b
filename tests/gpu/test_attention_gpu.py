"""On a CUDA device: an attention for each tower, FlashAttention among them where its package is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import layerprof
from layerprof.records import Run

pytestmark = pytest.mark.gpu


def measured(folder: Path, attention: str, optimization: str = "eager") -> Run:
    """Measure the bundled model in fp16."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return layerprof.profile(
        model="demo",
        device="cuda",
        dtype="fp16",
        samples=2,
        max_new_tokens=4,
        fixed_tokens=True,
        attention=attention,
        optimization=optimization,
        trace=False,
        energy="off",
        output=str(folder / f"{optimization}-{attention.replace('=', '-').replace(',', '-')}"),
    )


@pytest.mark.parametrize("optimization", ["eager", "compile", "graph"])
def test_each_tower_runs_its_own_on_a_gpu(optimization: str, tmp_path: Path) -> None:
    """With compilation and graphs on top of it, too; the work is that of eager attention."""
    run = measured(tmp_path, "vision=sdpa,language=eager", optimization)
    assert run.model["attention"] == {"vision": "sdpa", "language": "eager"}
    assert run.totals.flops == measured(tmp_path, "eager").totals.flops


@pytest.mark.parametrize(
    ("name", "module"), [("flash", "flash_attn"), ("flash3", "flash_attn_interface"), ("flash", "kernels")]
)
@pytest.mark.parametrize("tower", ["vision", "language"])
def test_flash_attention_in_one_tower_is_counted_like_any(tower: str, name: str, module: str, tmp_path: Path) -> None:
    """What ran is told by its name, or that of the kernel in its place; FLOPs are those of eager attention."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    run = measured(tmp_path, f"{tower}={name}")
    other = "language" if tower == "vision" else "vision"
    assert run.model["attention"][other] == "eager"
    assert "flash" in run.model["attention"][tower]
    assert run.totals.flops == measured(tmp_path, "eager").totals.flops
