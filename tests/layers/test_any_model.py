"""Layers of models as other projects' tests collect them: shared, nested, recursive, bare, lazy, scripted, odd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from layerprof.layers.find import find_layers


class Bare(nn.Module):
    """A parameter and a product, no part."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return x @ self.weight


class Listed(nn.Module):
    """Parameters in a list and in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.several = nn.ParameterList([nn.Parameter(torch.ones(4, 4)) for _ in range(3)])
        self.named = nn.ParameterDict({"a": nn.Parameter(torch.ones(4, 4))})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply by each."""
        for weight in (*self.several, self.named["a"]):
            x = x @ weight
        return x


class Free(nn.Module):
    """No parameter at all, and a product all the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply the input by itself."""
        return x @ x.mT


class Recursive(nn.Module):
    """One convolution called again and again, beside a place for a module that is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.register_module("nothing", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Call it three times."""
        return self.conv(self.conv(self.conv(x)))  # type: ignore[no-any-return]  # torch's modules give Any


class Reused(nn.Module):
    """One linear layer under three names: as an attribute, and twice in a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)
        self.steps = nn.Sequential(self.part, nn.ReLU(), self.part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the sequence."""
        return self.steps(x)  # type: ignore[no-any-return]  # torch's modules give Any


class Universal(nn.Module):
    """A transformer whose one block stands in its list three times."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.embed, self.layers = nn.Embedding(9, 4), nn.ModuleList([block] * 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Run the block three times."""
        x = self.embed(ids)
        for block in self.layers:
            x = block(x)
        return x  # type: ignore[no-any-return]  # torch's modules give Any


class Choice(nn.Module):
    """Parts in a dictionary, of which one call uses some."""

    def __init__(self) -> None:
        super().__init__()
        self.choices = nn.ModuleDict({"conv": nn.Conv1d(4, 4, 1), "pool": nn.MaxPool1d(2)})
        self.acts = nn.ModuleDict({"relu": nn.ReLU(), "prelu": nn.PReLU()})

    def forward(self, x: torch.Tensor, act: str) -> torch.Tensor:
        """Use the convolution and one activation."""
        return self.acts[act](self.choices["conv"](x))  # type: ignore[no-any-return]  # torch's modules give Any


class Odd(nn.Module):
    """Raises what nobody expects when asked for an attribute, and holds itself in a list that torch does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)
        self.friends = [self]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise RuntimeError(f"what is {name}?") from None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Call the one part."""
        return self.part(x)  # type: ignore[no-any-return]  # torch's modules give Any


def holding_itself() -> nn.Module:
    """Return a model whose part has it for a part."""
    model = Reused()
    model.part.back = model
    return model


def tied() -> nn.Module:
    """Return a model whose embedding and head are one table, and whose two norms are one module."""
    model = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False))
    model[3].weight = model[0].weight
    model.append(model[1])
    return model


def deep() -> nn.Module:
    """Return one layer under forty wrappers."""
    model: nn.Module = nn.Linear(4, 4)
    for _ in range(40):
        model = nn.Sequential(model)
    return model


def partly_compiled() -> nn.Module:
    """Return scripted, traced and compiled parts beside a plain one."""
    scripted: Any = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    traced: Any = torch.jit.trace(nn.Linear(4, 4), torch.ones(1, 4))  # type: ignore[no-untyped-call]  # untyped there
    compiled: Any = torch.compile(nn.Linear(4, 4), backend="eager")
    return nn.Sequential(scripted, traced, compiled, nn.Linear(4, 4))


def quantised() -> nn.Module:
    """Return a layer whose matrix is packed away, and is no parameter."""
    layer: Any = torch.ao.nn.quantized.dynamic.Linear
    return nn.Sequential(layer(4, 4))


MODELS: dict[str, tuple[Any, list[str]]] = {
    "a single linear layer": (nn.Linear(4, 4), [""]),
    "a single convolution": (nn.Conv2d(3, 4, 1), [""]),
    "a recurrent layer": (nn.LSTM(4, 4), [""]),
    "a bare parameter": (Bare(), [""]),
    "parameters in lists": (Listed(), [""]),
    "no parameter": (Free(), [""]),
    "an activation": (nn.ReLU(), [""]),
    "a scripted model": (torch.jit.script(nn.Linear(4, 4)), [""]),
    "a lazy layer": (nn.LazyLinear(4), [""]),
    "one child": (nn.Sequential(nn.Linear(4, 4)), ["0"]),
    "plain layers in a sequence": (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), ["0", "2"]),
    "a compiled layer": (torch.compile(nn.Linear(4, 4), backend="eager"), ["_orig_mod"]),
    "lazy parts": (nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyConv1d(4, 1)), ["1", "0", "2"]),
    "a part called again and again": (Recursive(), ["conv"]),
    "one part under three names": (Reused(), ["part", "steps"]),
    "one block three times": (Universal(), ["embed", "layers.0"]),
    "tied tables and one norm twice": (tied(), ["0", "1", "2", "3"]),
    "parts in a dictionary": (Choice(), ["choices.conv", "acts.prelu"]),
    "many wrappers": (deep(), ["0"]),
    "scripted, traced and compiled parts": (partly_compiled(), ["0", "1", "2._orig_mod", "3"]),
    "a quantised layer": (quantised(), ["0"]),
    "a model that raises at odd times": (Odd(), ["part"]),
    "a model that holds itself": (holding_itself(), ["part", "steps"]),
}


@pytest.mark.parametrize("kind", MODELS)
def test_any_model_has_layers(kind: str) -> None:
    """The layers are those that the model's structure says, and finding them changes nothing."""
    model, expected = MODELS[kind]
    before = dict(vars(model))
    assert sorted(layer.name for layer in find_layers(model)) == sorted(expected)
    assert vars(model) == before


@pytest.mark.parametrize(
    ("model", "tower"), [(nn.Conv2d(3, 4, 1), "vision"), (nn.Embedding(9, 4), "language"), (Free(), "language")]
)
def test_a_model_that_is_its_own_layer_has_a_tower_and_is_no_block(model: nn.Module, tower: str) -> None:
    """What reads pixels is vision; its kind is the rest, for no part says more."""
    (layer,) = find_layers(model)
    assert (layer.name, layer.tower, layer.kind, layer.index) == ("", tower, "other", 0)
