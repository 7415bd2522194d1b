"""Cross-check: the peers' figures on known work, and the reason why each differs from ours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from listed_batches import first_batch
from sessions import prepared
from torch import nn

from layerprof.flops.crosscheck import CrossCheck, crosscheck
from layerprof.report import crosscheck as view
from layerprof.settings import build

WIDTH, TOKENS = 16, 7
POSITIONS_FLOPS = 2 * TOKENS * WIDTH * WIDTH


class Block(nn.Module):
    """One matrix without bias: 2 x tokens x width x width FLOPs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, tokens, WIDTH) to the same shape."""
        mapped: torch.Tensor = self.linear(x)
        return mapped


class Plain(nn.Module):
    """Three blocks."""

    def __init__(self, untraceable: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(3))
        self.untraceable = untraceable

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, tokens, WIDTH) to the same shape; with `untraceable`, refuse to be traced."""
        if self.untraceable and torch._C._get_tracing_state() is not None:
            raise RuntimeError("this model cannot be traced")
        for layer in self.layers:
            x = layer(x)
        return x


def _named(check: CrossCheck, kind: str) -> Any:
    return next(row for row in check.rows if row.kind == kind)


def test_peers_on_known_work() -> None:
    """Three matrices: FlopCounterMode counts as we do, fvcore and ptflops 1 per multiply-accumulate, so half."""
    check = crosscheck(Plain().eval(), {"x": torch.randn(1, TOKENS, WIDTH)})
    row = check.rows[0]
    assert (row.layers, row.flops) == (3, 3 * POSITIONS_FLOPS)
    assert row.peers["FlopCounterMode"] == 3 * POSITIONS_FLOPS
    assert row.peers["fvcore"] == 3 * POSITIONS_FLOPS / 2
    assert row.peers["ptflops"] == 3 * POSITIONS_FLOPS / 2
    assert "1 per multiply-accumulate" in row.reasons["fvcore"]


def test_a_peer_that_fails_is_a_row_that_says_how() -> None:
    """A model that cannot be traced leaves fvcore's column empty with the error; the others stand."""
    check = crosscheck(Plain(untraceable=True).eval(), {"x": torch.randn(1, TOKENS, WIDTH)})
    failures = {peer.name: peer.failure for peer in check.peers}
    assert "cannot be traced" in str(failures["fvcore"])
    assert failures["FlopCounterMode"] is None
    assert check.rows[0].peers.get("fvcore") is None
    out = io.StringIO()
    view.render(check, out)
    assert "cannot be traced" in out.getvalue()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> CrossCheck:
    """Count the bundled model's first prompt with every counter, eager attention."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    session = prepared(build(model="demo", samples=1, output=str(folder)))
    assert Path(folder).exists()
    return crosscheck(session.subject.model, first_batch(session).tensors, session.asked.layers)


def test_flop_counter_mode_agrees_on_every_layer_of_the_bundled_model(demo: CrossCheck) -> None:
    """The oracle: vision blocks, merger, patches and decoder layers to the last digit."""
    for kind in ("patch_embed", "vision_block", "merger", "decoder_layer"):
        row = _named(demo, kind)
        assert row.peers["FlopCounterMode"] == row.flops
        assert row.peers["fvcore"] == row.flops / 2


def test_the_head_on_every_position_is_told(demo: CrossCheck) -> None:
    """The peers score every position of the prompt, generate() the last one: `positions` times our figure."""
    head = _named(demo, "lm_head")
    assert demo.positions > 1
    assert head.peers["FlopCounterMode"] == head.flops * demo.positions
    assert "head on every position" in head.reasons["FlopCounterMode"]


def test_ptflops_misses_attention_and_it_is_told(demo: CrossCheck) -> None:
    """Functional matrix products stand under no module in ptflops: its decoder layers lack the attention part."""
    row = _named(demo, "decoder_layer")
    found = row.peers["ptflops"]
    assert found is not None
    assert found < row.flops / 2
    assert found >= (row.flops - row.attention_flops) / 2
    assert "attention missing" in row.reasons["ptflops"]


def test_a_row_of_ours_that_misses_an_operator_is_a_bound_and_explains_no_difference() -> None:
    """An operator that nobody knows in one of three blocks: the other two are not enough to judge the peers by."""

    @torch.library.custom_op("lp_cross_check::plain", mutates_args=())
    def plain(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    model = Plain().eval()
    model.get_submodule("layers.1.linear").register_forward_hook(lambda _module, _args, output: plain(output))
    check = crosscheck(model, {"x": torch.randn(1, TOKENS, WIDTH)})
    blocks, total = check.rows[0], _named(check, "total")
    assert (blocks.flops, blocks.flops_at_least) == (3 * POSITIONS_FLOPS, True)
    assert total.flops_at_least
    assert set(blocks.reasons.values()) == {"ours misses an operator without a formula"}
    out = io.StringIO()
    view.render(check, out)
    assert ">= " in out.getvalue()
