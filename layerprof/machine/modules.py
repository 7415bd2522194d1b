"""What can be asked of any module: its names in a model, its attributes, whether it is ever called.

Modules that nobody here wrote may be shared, hold themselves, be scripted, not yet have weights, or raise anything when
they are asked for an attribute; none of that stops who asks here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from layerprof.machine import internals

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_NAMES = 100_000
"""Names that are listed at most: parts that share parts that share parts have more names than anyone asks by."""


def named(model: nn.Module) -> dict[str, nn.Module]:
    """Return every module under every one of its names, in the order of the tree: a module's first name comes first.

    `named_modules()` gives first names alone, or, asked for all, does not return from a module that holds itself.
    """
    found: dict[str, nn.Module] = {}
    for name, module in _below("", model, ()):
        found[name] = module
        if len(found) == MOST_NAMES:
            return found | dict(model.named_modules())
    return found


def _below(name: str, module: nn.Module, around: tuple[int, ...]) -> Iterator[tuple[str, nn.Module]]:
    yield name, module
    inside = (*around, id(module))
    for own, part in internals.parts(module):
        if id(part) not in inside:
            yield from _below(f"{name}.{own}" if name else own, part, inside)


def first_names(model: nn.Module) -> dict[str, str]:
    """Return the first name of each module, by each of its names."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(module), name) for name, module in named(model).items()}


def told(thing: object, name: str, default: Any = None) -> Any:
    """Return an attribute; the default where there is none, or where asking for it fails in any way."""
    try:
        return getattr(thing, name, default)
    except Exception:  # a `__getattr__` of somebody's own may raise what it likes
        return default


def is_called(module: nn.Module) -> bool:
    """Whether a module is ever called itself: lists, and modules without a `forward`, only hold others."""
    from torch import nn

    if "forward" in vars(module):
        return True
    # Asked of the class without its descriptors: that of a scripted module cannot be asked at all.
    return inspect.getattr_static(type(module), "forward", None) is not vars(nn.Module)["forward"]


def is_uninitialised(tensor: Tensor) -> bool:
    """Whether a parameter or buffer has no shape yet (lazy modules, until they are called)."""
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(tensor))
