"""The module tree of a model, and the repeated blocks in it, told by structure alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from layerprof.machine import internals
from layerprof.machine.modules import is_called, is_uninitialised, told
from layerprof.machine.stored import of_module, size

if TYPE_CHECKING:
    from torch import Tensor, nn

MIXES_POSITIONS = re.compile(r"att(entio)?n|mixer|mamba|ssm|rwkv|retention|hyena|recurrent|lstm|gru|fourier", re.I)
CONNECTS_TOWERS = re.compile(
    r"merger|projector|connector|connection|resampler|perceiver|q_?former|adapter|aligner|abstractor|(^|_)mm_|multi_?modal"
    r"|vision_proj|visual_proj|image_proj|language_proj|enc_to_dec",
    re.I,
)


class Tree:
    """The module tree of a model, with what its parts contain."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: dict[str, nn.Module] = dict(model.named_modules())
        self.children: dict[str, list[str]] = {name: [] for name in self.modules}
        for name in self.modules:
            if name:
                self.children[name.rpartition(".")[0]].append(name)

    def is_container(self, name: str) -> bool:
        """Whether a module only holds others and is never called itself: lists, and modules without a `forward`."""
        return not is_called(self.modules[name])

    def is_list(self, name: str) -> bool:
        """Whether a module is a list or a dictionary of modules, and nothing more."""
        return type(self.modules[name]).__name__ in ("ModuleList", "ModuleDict")

    def is_wrapper(self, name: str) -> bool:
        """Whether a module only passes on to the one module inside it."""
        kids = self.children[name]
        return len(kids) == 1 and own_name(kids[0]) in (internals.INNER, "module", "base_model")

    def is_sequence(self, name: str) -> bool:
        """Whether a module's parts are numbered from 0."""
        kids = [own_name(kid) for kid in self.children[name]]
        return bool(kids) and kids == [str(i) for i in range(len(kids))]

    def is_listing(self, name: str) -> bool:
        """Whether a module is a list of modules: numbered, or of a class that says so, such as a dictionary's."""
        from torch import nn

        listing = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
        return isinstance(internals.uncompiled(self.modules[name]), listing) or self.is_sequence(name)

    def is_norm(self, name: str) -> bool:
        """Tell whether a module normalises, and holds no matrix."""
        own, kind = own_name(name), self.kind_of(name)
        module = self.modules[name]
        named = bool(re.search(r"norm|(^|_)ln(_|\d|$)|layrnorm", own, re.I) or "Norm" in kind)
        flat = not any(map(is_matrix, module.parameters())) and not any(map(hidden_matrix, module.modules()))
        return flat and named

    def kind_of(self, name: str) -> str:
        """Class name of a module, seen through `torch.compile`'s wrapper."""
        return type(internals.uncompiled(self.modules[name])).__name__

    def parameters(self, name: str) -> int:
        """Count the parameters at and below a module, those that a quantised matrix holds elsewhere included.

        One that is not initialised counts as one.
        """
        if name not in self._counts:
            module = self.modules[name]
            self._counts[name] = size(module) + sum(map(is_uninitialised, module.parameters()))
        return self._counts[name]

    def matrices(self, name: str) -> int:
        """Count the modules at and below one that hold a matrix or a convolution of their own."""
        if name not in self._matrices:
            own = _has_matrix(self.modules[name])
            self._matrices[name] = own + sum(self.matrices(kid) for kid in self.children[name])
        return self._matrices[name]

    @cached_property
    def _matrices(self) -> dict[str, int]:
        return {}

    def convolves(self, name: str) -> bool:
        """Whether a convolution in two or three dimensions lies at or below a module."""
        if name not in self._convolving:
            inside = any(self.convolves(kid) for kid in self.children[name])
            self._convolving[name] = inside or _is_convolution(self.modules[name])
        return self._convolving[name]

    def shrinks(self, name: str) -> bool:
        """Whether a convolution or a pooling at or below a module makes pictures smaller."""
        strides = [told(module, "stride", 1) for module in self.modules[name].modules()]
        return any(max(s, default=1) > 1 if isinstance(s, tuple) else s in (2, 3, 4) for s in strides)

    @cached_property
    def _convolving(self) -> dict[str, bool]:
        return {}

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {}


def hidden_matrix(module: nn.Module) -> bool:
    """Tell whether a module has a matrix of its own that is no parameter with its sides.

    Quantised layers keep theirs packed, in buffers (GPTQ, AWQ) or in an object of their own (torch's dynamic ones).
    """
    if any(weight.quantised for weight in of_module(module)):
        return True
    sides = [told(module, name) for name in ("in_features", "out_features")]
    return all(isinstance(side, int) for side in sides) and not any(map(is_matrix, module.parameters()))


def _has_matrix(module: nn.Module) -> bool:
    """Tell whether a module's own parameters have two sides; a scale of each channel, however it is shaped, has one."""
    own = list(module.parameters(recurse=False))
    return any(is_uninitialised(p) or sum(side > 1 for side in p.shape) > 1 for p in own) or bool(hidden_matrix(module))


def _is_convolution(module: nn.Module) -> bool:
    """Tell whether a module slides a kernel of two or three dimensions over channels, whatever its class is called."""
    kernel = told(module, "kernel_size")
    return isinstance(kernel, tuple) and len(kernel) > 1 and isinstance(told(module, "in_channels"), int)


def is_matrix(parameter: Tensor) -> bool:
    """Tell whether a parameter has two dimensions or more; one without a shape yet is taken for a matrix."""
    return is_uninitialised(parameter) or parameter.ndim >= 2


def own_name(name: str) -> str:
    """Return the last part of a module's name."""
    return name.rpartition(".")[2]


def is_under(name: str, place: str) -> bool:
    """Tell whether a module is another one or lies inside it."""
    return not place or name == place or name.startswith(place + ".")


def ancestors(name: str) -> Iterator[str]:
    """Yield a name and those of the modules around it, innermost first; the root's is empty."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""
