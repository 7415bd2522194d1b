"""`--optimization compile`: something really is compiled, rows per layer stay, and the model is as before."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from layerprof.errors import RunFailedError
from layerprof.layers.find import find_layers
from layerprof.models import compile_layers


@pytest.fixture
def model() -> nn.Module:
    """Build a text-only decoder of three layers with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    built: nn.Module = LlamaForCausalLM(config)
    return built.train(False)


def _answer(model: nn.Module) -> torch.Tensor:
    tokens = torch.arange(2, 10).reshape(2, 4)
    return model.generate(  # type: ignore[operator, no-any-return]  # nn.Module attributes are typed as tensors
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=4,
        do_sample=False,
        cache_implementation="static",
        disable_compile=True,
        pad_token_id=0,
    )


def test_every_decoder_layer_is_compiled_and_answers_stay(model: nn.Module) -> None:
    """Three layers give at least three graphs, hooks outside them still fire, and the tokens are the eager ones."""
    eager = _answer(model)
    layers = find_layers(model)
    fired = []
    handle = model.model.layers[1].register_forward_hook(lambda *_: fired.append(1))  # type: ignore[union-attr, index]
    with compile_layers.compiled_decoder(model, layers, backend="eager") as report:
        with compile_layers.compile_time(report):
            _answer(model)
        fired.clear()
        assert torch.equal(_answer(model), eager)
    handle.remove()
    assert report.graphs >= 3
    assert report.seconds > 0
    assert len(fired) == 4, "one prefill and three decode steps of layer 1"


def test_the_model_is_as_before(model: nn.Module) -> None:
    """No compiled forward stays behind, also when the block raises."""
    with (
        pytest.raises(ValueError, match="stop"),
        compile_layers.compiled_decoder(model, find_layers(model), backend="eager"),
    ):
        raise ValueError("stop")
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_what_torch_says_of_its_cache_on_disk_is_not_shown(model: nn.Module) -> None:
    """Its advice to the authors of a class of weights; other warnings stay, and so does this one outside."""
    told = "Int8Tensor does not implement _stable_hash_for_caching. For PT2-compatible tensor subclasses"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with compile_layers.compiled_decoder(model, find_layers(model), backend="eager"):
            warnings.warn(told, stacklevel=1)
            warnings.warn("another", stacklevel=1)
        warnings.warn(f"{told} outside", stacklevel=1)
    assert [str(one.message) for one in caught] == ["another", f"{told} outside"]


def test_a_walk_that_compiles_nothing_is_a_failure(model: nn.Module) -> None:
    """Figures of an eager model must not be called compiled."""
    with (
        compile_layers.compiled_decoder(model, find_layers(model), backend="eager") as report,
        pytest.raises(RunFailedError, match="Nothing was compiled"),
        compile_layers.compile_time(report),
    ):
        pass


def test_uncompiled_runs_no_graph(model: nn.Module) -> None:
    """The FLOPs pass runs the same decoder without the compiler, and the compiled one is back afterwards."""
    layers = find_layers(model)
    with compile_layers.compiled_decoder(model, layers, backend="eager"):
        with compile_layers.uncompiled():
            _answer(model)
        assert compile_layers.graphs() == 0
        _answer(model)
        assert compile_layers.graphs() > 0
