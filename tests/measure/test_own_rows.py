"""Rows of a user's own model hold what ran inside their calls, under any name, whatever else is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from layerprof import LayerProfiler
from layerprof.books import ledger
from layerprof.errors import RequestError
from layerprof.records import LayerRow, Phase, Run

LINEAR = 2 * 2 * 10 * 10
"""FLOPs of a layer of 10 x 10 on two rows."""


class Shared(nn.Module):
    """One linear layer as an attribute, twice in a sequence, and called once more on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(10, 10)
        self.steps = nn.Sequential(self.part, nn.ReLU(), self.part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the sequence, then the layer."""
        return self.part(self.steps(x))  # type: ignore[no-any-return]  # torch's modules give Any


class Block(nn.Module):
    """Attention of one head and two matrices behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 1, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix positions, then widths."""
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return x + self.mlp(x)  # type: ignore[no-any-return]  # torch's modules give Any


class Decoder(nn.Module):
    """An embedding, blocks inside a holder of their own (which computes, too), and a head tied to the embedding."""

    def __init__(self, *, repeated: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.body = Body(repeated=repeated)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Write the scores of every position."""
        return self.head(self.body(self.embed(ids)))  # type: ignore[no-any-return]  # torch's modules give Any


class Body(nn.Module):
    """Three blocks, or one three times, whose MLPs are one module in any case; and a product of its own."""

    def __init__(self, *, repeated: bool) -> None:
        super().__init__()
        blocks = [Block()] * 3 if repeated else [Block() for _ in range(3)]
        for block in blocks:
            block.mlp = blocks[0].mlp
        self.layers = nn.ModuleList(blocks)
        self.scale = nn.Parameter(torch.eye(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale, then run the blocks."""
        x = x @ self.scale
        for block in self.layers:
            x = block(x)
        return x


def profiled(model: nn.Module, inputs: Any, layers: str = "all") -> Run:
    """Call a model once and return the run."""
    with torch.no_grad(), LayerProfiler(model.eval(), layers) as prof:
        model(inputs)
    return prof.run


def figures(row: LayerRow) -> tuple[Any, ...]:
    """Return what of a row does not depend on the clock or on its name."""
    names = ("kind", "tower", "phase", "calls", "flops", "flops_useful", "flops_causal", "bytes_weights")
    return tuple(getattr(row, name) for name in (*names, "bytes_activations", "bytes_kv", "uncounted"))


def inputs_of(model: nn.Module) -> torch.Tensor:
    """Return what the models here are called with."""
    return torch.ones(2, 10) if isinstance(model, Shared) else torch.arange(10).reshape(2, 5)


def test_a_holder_of_shared_parts_has_both_calls_and_the_part_has_all() -> None:
    """800 FLOPs in the sequence's one call; 1200 in the layer's three; 1200 in the books."""
    run = profiled(Shared(), torch.ones(2, 10))
    assert {row.name: (row.calls, row.flops) for row in run.layers} == {
        "part": (3, 3 * LINEAR),
        "steps": (1, 2 * LINEAR),
    }
    assert (run.ledger.flops.total, run.ledger.flops.residual) == (3 * LINEAR, 0)
    (together,) = ledger.sums(run.layers, lambda row: row.phase).values()
    assert together.flops == 3 * LINEAR, "nothing twice"
    spans = {row.name: row.span_s.total for row in run.layers if row.span_s}
    assert run.ledger.span_s.total is not None
    assert max(spans.values()) <= (together.span_s or 0) <= run.ledger.span_s.total


def test_weights_are_read_once_a_call_of_the_layer_whose_row_it_is() -> None:
    """110 numbers of four bytes: three times by the layer, in one call of the sequence once."""
    rows = {row.name: row for row in profiled(Shared(), torch.ones(2, 10)).layers}
    assert rows["part"].bytes_weights == 3 * 440
    assert rows["steps"].bytes_weights == 440
    assert rows["steps"].bytes_activations == 2 * 2 * 10 * 4, "what crosses its own boundary"


@pytest.mark.parametrize(
    ("selector", "shown"),
    [
        ("part", ["part"]),
        ("steps.0", ["steps.0"]),
        ("steps.2", ["steps.2"]),
        ("steps.?", ["steps.0"]),
        ("part,steps.2", ["part"]),
        ("steps.2,part", ["steps.2"]),
        ("all,steps.2", ["steps", "steps.2"]),
        ("steps.1", ["steps.1"]),
    ],
)
def test_a_module_is_shown_once_under_the_name_that_it_was_asked_by(selector: str, shown: list[str]) -> None:
    """Any of its names will do; a glob takes the first that matches, and a name written out goes before that."""
    run = profiled(Shared(), torch.ones(2, 10), selector)
    assert [row.name for row in run.layers] == shown
    for row in run.layers:
        if row.name in ("part", "steps.0", "steps.2"):
            assert (row.calls, row.flops) == (3, 3 * LINEAR)


def test_one_block_many_times_is_one_row_with_all_its_calls() -> None:
    """A universal transformer: by hand, three times the work of one call."""
    once = profiled(Block(), torch.ones(2, 5, 8), "attn,mlp").layers
    run = profiled(Decoder(repeated=True), inputs_of(Decoder()))
    (block,) = [row for row in run.layers if row.name == "body.layers.0"]
    assert (block.calls, block.flops) == (3, 3 * sum(row.flops or 0 for row in once))


def test_a_tied_table_is_read_by_each_for_what_it_needs() -> None:
    """The embedding reads a row for each of 10 tokens, at most all 11; the head reads the whole table."""
    run = profiled(Decoder(), inputs_of(Decoder()))
    rows = {row.name: row for row in run.layers}
    assert (rows["embed"].bytes_weights, rows["head"].bytes_weights) == (10 * 8 * 4, 11 * 8 * 4)
    assert run.model["parameters"] == sum(p.numel() for p in {*Decoder().parameters()}) == 88 + 64 + 3 * 288 + 280


def test_a_holder_has_its_own_work_and_that_of_its_layers() -> None:
    """A product of 2 x 5 x 8 x 8 beside three blocks; where it is not asked for, the books name the product."""
    run = profiled(Decoder(), inputs_of(Decoder()), "all,body")
    rows = {row.name: row for row in run.layers}
    blocks = sum(rows[f"body.layers.{i}"].flops or 0 for i in range(3))
    assert rows["body"].flops == 2 * 10 * 8 * 8 + blocks
    assert run.ledger.flops.rest["outside layers: body"] == 2 * 10 * 8 * 8


@pytest.mark.parametrize("model", [Shared, Decoder, lambda: Decoder(repeated=True)])
def test_a_selector_changes_what_is_shown_and_nothing_else(model: Callable[[], nn.Module]) -> None:
    """Every row of every module, alone or beside any other: the same figures; and the same books."""
    torch.manual_seed(0)
    made = model().eval()
    inputs = inputs_of(made)
    names = [name for name, _ in made.named_modules(remove_duplicate=False) if name]
    everything = profiled(made, inputs, ",".join(["all", *names]))
    alone: dict[str, list[tuple[Any, ...]]] = {}
    for selector in ("all", *names):
        run = profiled(made, inputs, selector)
        assert run.ledger.flops == everything.ledger.flops
        assert run.totals.bytes == everything.totals.bytes
        for row in run.layers:
            alone.setdefault(row.name, []).append(figures(row))
    called = {row.name for row in everything.layers}
    assert called <= set(alone)
    for name, seen in alone.items():
        assert len(set(map(repr, seen))) == 1, name
    for row in everything.layers:
        assert figures(row) == alone[row.name][0], row.name


def test_a_holder_of_blocks_is_in_the_phase_of_its_step() -> None:
    """A model of transformers writes four tokens: its decoder has one call in prefill and three in decode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 30}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model: Any = LlamaForCausalLM(LlamaConfig.from_dict(sizes | heads))
    model.eval()
    with LayerProfiler(model, "all,model") as prof:
        model.generate(torch.ones(1, 4, dtype=torch.long), max_new_tokens=4, do_sample=False, eos_token_id=None)
    rows = {(row.name, row.phase): row for row in prof.run.layers}
    for phase, calls in ((Phase.PREFILL, 1), (Phase.DECODE, 3)):
        inside = [row.flops or 0 for row in prof.run.layers if row.name.startswith("model.") and row.phase is phase]
        assert (rows["model", phase].calls, rows["model", phase].flops) == (calls, sum(inside))


class Itself(nn.Module):
    """Calls itself until it has had enough."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(10, 10)

    def forward(self, x: torch.Tensor, times: int = 2) -> torch.Tensor:
        """Call the part, and this."""
        x = self.part(x)
        return self(x, times - 1) if times else x


def test_what_calls_itself_has_its_work_once() -> None:
    """Three calls inside each other, each with a layer of its own work: three layers' work, not six."""
    model = nn.Sequential(Itself())
    run = profiled(model, torch.ones(2, 10), "0")
    (row,) = run.layers
    assert (row.calls, row.flops) == (3, 3 * LINEAR)
    assert row.span_s is not None
    assert row.span_s.total <= (run.ledger.span_s.total or 0)


class Free(nn.Module):
    """No parameter, and a product all the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply the input by itself."""
        return x @ x.mT


@pytest.mark.parametrize(
    ("model", "flops"),
    [
        (nn.Linear(10, 10), LINEAR),
        (nn.LazyLinear(10), LINEAR),
        (torch.jit.script(nn.Linear(10, 10)), LINEAR),
        (Free(), 2 * 2 * 10 * 2),
        (nn.ReLU(), 0),
    ],
)
def test_a_model_that_is_its_own_layer_has_a_row(model: nn.Module, flops: int) -> None:
    """All that ran is its own, and so the books close."""
    run = profiled(model, torch.ones(2, 10))
    (row,) = run.layers
    assert (row.name, row.kind, row.phase, row.calls, row.flops) == ("", "other", Phase.PREFILL, 1, flops)
    assert (run.ledger.flops.rest, run.ledger.flops.residual) == ({"other": flops}, 0)


def test_a_lazy_layer_s_weights_are_counted_once_it_has_them() -> None:
    """It has none before its first call, which reads 10 x 10 and a bias, and is given the whole number afterwards."""
    run = profiled(nn.Sequential(nn.LazyLinear(10), nn.ReLU()), torch.ones(2, 10))
    assert [row.bytes_weights for row in run.layers] == [440]
    assert run.model["parameters"] == 110


def test_what_is_never_called_is_refused_before_the_block() -> None:
    """One message with its remedy."""
    with pytest.raises(RequestError, match="no layers to profile"):
        LayerProfiler(nn.Module())
