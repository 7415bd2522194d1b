"""LayerProfiler tells the phases of `generate()` and of a loop of one's own by what each call is given."""

from __future__ import annotations

from typing import Any

import odd_layouts
import pytest
import torch
from torch import nn

from layerprof import LayerProfiler
from layerprof.records import Phase, Run

IDS = torch.arange(3, 17).view(2, 7)


def calls(run: Run, *kinds: str) -> dict[str, dict[Phase, int]]:
    """Return the calls by phase of each layer of some kinds."""
    found: dict[str, dict[Phase, int]] = {}
    for row in run.layers:
        if row.kind in kinds:
            found.setdefault(row.name, {})[row.phase] = row.calls
    return found


@pytest.mark.parametrize(("chunk", "prefills"), [(None, 1), (3, 3), (6, 2)])
def test_a_prompt_in_chunks_is_prefill_to_its_end(chunk: int | None, prefills: int) -> None:
    """7 tokens in chunks of 3 or 6 end with a chunk of one; two steps of decode follow."""
    model = odd_layouts.llama().eval()
    with LayerProfiler(model) as prof, torch.no_grad():
        model.generate(IDS, max_new_tokens=3, min_new_tokens=3, do_sample=False, prefill_chunk_size=chunk)
    for found in calls(prof.run, "embed_tokens", "decoder_layer", "norm", "lm_head").values():
        assert found == {Phase.PREFILL: prefills, Phase.DECODE: 2}


def test_each_call_of_a_loop_is_told_by_its_cache() -> None:
    """A prompt and two tokens with what it left: one call of prefill and two of decode, the table's included."""
    model, cache = odd_layouts.llama().eval(), None
    with LayerProfiler(model) as prof, torch.no_grad():
        for step in (IDS, IDS[:, :1], IDS[:, :1]):
            cache = model(step, past_key_values=cache, use_cache=True).past_key_values
    for found in calls(prof.run, "embed_tokens", "decoder_layer", "norm", "lm_head").values():
        assert found == {Phase.PREFILL: 1, Phase.DECODE: 2}


class Shaped:
    """Looks like a tensor and is none."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


class Raising:
    """Has no shape, and says so."""

    @property
    def shape(self) -> Any:
        """Refuse."""
        raise RuntimeError("no shape for you")


class Takes(nn.Module):
    """A matrix that is handed anything beside its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, other: Any, x: torch.Tensor, **more: Any) -> torch.Tensor:
        """Pass it by."""
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("other", [Shaped(3), Shaped("two"), Shaped(None), Shaped([2]), Raising(), Shaped, 7])
def test_what_only_looks_like_a_tensor_changes_no_call(other: Any) -> None:
    """It stands first, and by name; the answer and the FLOPs of 2 x 2 x 3 x 4 x 4 are those without it."""
    model, x = Takes().eval(), torch.randn(3, 4)
    expected = model(other, x, past_key_values=other)
    with LayerProfiler(model) as prof:
        found = model(other, x, past_key_values=other)
    assert torch.equal(found, expected)
    assert prof.run.ledger.flops.total == 2 * 2 * 3 * 4 * 4


@pytest.mark.parametrize("part", ["", "layers.0"])
def test_what_is_traced_inside_the_block_has_the_model_s_own_operators(part: str) -> None:
    """Whole or in part: `torch.jit.trace` gives the same graph, without sizes that somebody else read."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    model, x = Model().eval(), torch.randn(2, 5, 8)
    traced = model.get_submodule(part)

    def operators() -> list[str]:
        graph = torch.jit.trace(traced, x).inlined_graph  # type: ignore[no-untyped-call]  # untyped there
        return [node.kind() for node in graph.nodes()]

    expected = operators()
    with LayerProfiler(model), torch.no_grad():
        model(x)
        assert operators() == expected
