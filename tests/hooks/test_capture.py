"""Captured calls made again: the same answer, caches put back, cold weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from layerprof.hooks.energy.capture import CaptureHook
from layerprof.hooks.energy.clock import HostClock
from layerprof.hooks.energy.copies import copies_needed, rotate
from layerprof.hooks.energy.loop import verify
from layerprof.hooks.energy.state import CallInputs, difference
from torch import Tensor, nn

from layerprof.readings import Layer
from layerprof.records import IN_TURN, Phase


def _captured(name: str, attention: str = "sdpa", steps: int = 4) -> CaptureHook:
    import families

    from layerprof.layers.find import find_layers

    family = families.build(name, attention)
    hook = CaptureHook(family.model, find_layers(family.model), decode_step=2)
    with hook, hook.batch(0):
        families.run(family, steps)
    return hook


@pytest.mark.parametrize(
    ("name", "attention"), [("qwen2_5_vl", "sdpa"), ("gemma3", "sdpa"), ("mllama", "sdpa"), ("florence2", "eager")]
)
def test_every_captured_call_gives_again_what_it_gave_in_the_model(name: str, attention: str) -> None:
    """KV caches that grow, slide, cross over to the image or hang on an encoder: three calls in a row, same answer."""
    hook = _captured(name, attention)
    assert {c.phase for c in hook.calls.values()} == set(IN_TURN)
    with torch.no_grad():
        refused = {c.key: why for c in hook.calls.values() if (why := verify(c, "cpu", HostClock()))}
    assert refused == {}


def test_capturing_leaves_no_hook_and_the_answer_as_it_was() -> None:
    """What is measured is the model as the user has it."""
    import families

    from layerprof.layers.find import find_layers

    family = families.build("qwen2_5_vl", "sdpa")
    bare = families.run(family, 4)
    hook = CaptureHook(family.model, find_layers(family.model), decode_step=2)
    with hook, hook.batch(0):
        assert torch.equal(families.run(family, 4), bare)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in family.model.modules())


def test_the_wanted_decode_step_is_kept_or_the_last_before_the_end() -> None:
    """The middle step stands for the mean of all; an answer of four tokens has three decode steps."""
    steps = {c.step for c in _captured("llama").calls.values() if c.phase is Phase.DECODE}
    assert steps == {2}
    short = {c.step for c in _captured("llama", steps=2).calls.values() if c.phase is Phase.DECODE}
    assert short == {1}


class _Sum(nn.Module):
    """Adds its input to a cache and gives the cache's mean: any state left behind shows."""

    layer_idx = 0

    def forward(self, x: Tensor, past_key_values: Any) -> Tensor:
        keys, values = past_key_values.update(x, x * 2, 0)
        length = past_key_values.get_seq_length(0)
        mixed: Tensor = keys.sum(-2) + values.sum(-2) + length
        return mixed


def _caches() -> list[Any]:
    from transformers import LlamaConfig
    from transformers.cache_utils import DynamicCache, StaticCache

    config = LlamaConfig(hidden_size=8, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=1)
    sliding = LlamaConfig(hidden_size=8, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=1)
    sliding.sliding_window = 4
    sliding.layer_types = ["sliding_attention"]
    return [
        DynamicCache(),
        DynamicCache(config=sliding),
        StaticCache(config=config, max_cache_len=16),
        StaticCache(config=sliding, max_cache_len=16),
    ]


@pytest.mark.parametrize("which", range(4))
def test_a_cache_is_put_back_before_each_call_and_the_models_own_stays_as_it_is(which: int) -> None:
    """Growing, sliding, written in place, written in place and sliding; each filled with six positions before."""
    cache, module = _caches()[which], _Sum()
    torch.manual_seed(0)
    for _ in range(6):
        module(torch.randn(1, 2, 1, 4), cache)
    x = torch.randn(1, 2, 1, 4)
    inputs = CallInputs((x,), {"past_key_values": cache}, frozenset([0]), lambda t: t.detach().clone())
    wanted = module(x, cache)
    after = int(cache.get_seq_length())
    found: list[Tensor] = []
    for attempt in (0, 1):
        if attempt:
            inputs.copy_everything()
        found = []
        for _ in range(4):
            args, kwargs = inputs.fresh()
            found.append(module(*args, **kwargs))
        if all(torch.equal(f, wanted) for f in found):
            break
    assert all(torch.equal(f, wanted) for f in found)
    assert int(cache.get_seq_length()) == after


def test_a_call_that_answers_otherwise_is_refused() -> None:
    """A layer with memory of its own is not the same call twice: no figure, with that reason."""

    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1.0
            return x + self.count

    model = nn.ModuleDict({"a": Forgetful()})
    hook = CaptureHook(model, [Layer("a", "vision", "vision_block", 0)])
    with hook, hook.batch(0):
        model["a"](torch.ones(2))
    (captured,) = hook.calls.values()
    assert "differs from the original" in str(verify(captured, "cpu", HostClock()))


def test_a_call_that_cannot_stand_alone_is_refused() -> None:
    """A layer that needs its model around it: its own words, no exception."""

    class Needy(nn.Module):
        ready = True

        def forward(self, x: Tensor) -> Tensor:
            if not self.ready:
                raise RuntimeError("no context")
            return x

    model = nn.ModuleDict({"a": Needy()})
    hook = CaptureHook(model, [Layer("a", "vision", "vision_block", 0)])
    with hook, hook.batch(0):
        model["a"](torch.ones(2))
    Needy.ready = False
    (captured,) = hook.calls.values()
    assert "no context" in str(verify(captured, "cpu", HostClock()))


@pytest.mark.parametrize(
    ("found", "wanted", "worst"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([math.nan, 2.0], [math.nan, 2.0], 0.0),
        ([math.nan, 2.0], [1.0, 2.0], math.inf),
        ([math.inf, 2.0], [math.inf, 2.0], 0.0),
    ],
)
def test_outputs_are_compared_by_their_largest_difference(
    found: list[float], wanted: list[float], worst: float
) -> None:
    """Relative to the largest value; NaN agrees with NaN only."""
    assert difference([torch.tensor(found)], [torch.tensor(wanted)]) == worst


def test_outputs_of_another_shape_differ() -> None:
    """However close their values."""
    assert difference([torch.ones(2)], [torch.ones(3)]) == math.inf


# --- cold weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "cache", "copies"), [(39_400_000, 50e6, 8), (154_000_000, 50e6, 3), (0, 50e6, 1)])
def test_copies_follow_the_published_rule(weights: int, cache: float, copies: int) -> None:
    """ceil(5 L2 / bytes) + 1: on an H100, 8 copies of a vision block of 39.4 MB, 3 of a decoder layer of 154 MB."""
    assert copies_needed(weights, int(cache)) == copies


def test_copies_are_apart_in_memory_and_give_the_same() -> None:
    """Weights of their own, equal values; too little room or too few weights are said."""
    layer = nn.Linear(16, 16)
    rotation = rotate(layer, "cpu", cache=1000, room=10**9)
    assert (len(rotation.modules), rotation.cold) == (copies_needed(17 * 16 * 4, 1000), True)
    assert len({m.weight.data_ptr() for m in rotation.modules}) == len(rotation.modules)
    assert all(torch.equal(m.weight, layer.weight) for m in rotation.modules)
    short = rotate(layer, "cpu", cache=10_000, room=3 * 17 * 16 * 4)
    assert (len(short.modules), short.cold) == (4, False)
    assert "memory" in str(short.reason)
    small = rotate(layer, "cpu", cache=10**8, room=10**12)
    assert len(small.modules) == 64
    assert "few" in str(small.reason)


def test_a_module_that_cannot_be_copied_is_measured_warm() -> None:
    """And the row says so."""

    class Single(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("one of a kind")

    rotation = rotate(Single(4, 4), "cpu", cache=1000, room=10**9)
    assert (len(rotation.modules), rotation.cold) == (1, False)
    assert "TypeError" in str(rotation.reason)


def test_a_module_whose_forward_was_replaced_is_measured_warm() -> None:
    """A compiled forward stays bound to the weights that it was made of: copies would only seem to keep caches cold."""
    module = nn.Sequential(nn.Linear(4, 4))
    inner = module[0]
    inner.forward = torch.compile(inner.forward, backend="eager")
    rotation = rotate(module, "cpu", cache=10_000, room=1 << 20)
    assert rotation.modules == (module,)
    assert not rotation.cold
    assert "warm" in (rotation.reason or "")
    del inner.forward
    assert rotate(module, "cpu", cache=100, room=1 << 20).cold
