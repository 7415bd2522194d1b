"""A call's arguments taken apart: tensors, which a CUDA graph reads where they lay, and all else, which it cannot read.

And what an object remembers outside of its tensors: a replay runs no Python, so nothing of that would move on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PLAIN = (type(None), bool, int, float, str, bytes, complex)


def taken_apart(value: Any, here: torch.device | None = None) -> tuple[list[Tensor], Hashable]:
    """Return the tensors among tuples, lists and dictionaries, in order, and the form that they were taken from.

    Two values of equal form differ in the contents of their tensors alone. Of other objects the form has the identity:
    keep them alive as long as it. Of tensors that lie elsewhere than `here` it has the contents: a graph of this device
    does not read them, but holds what stood in them at its capture.
    """
    tensors: list[Tensor] = []
    return tensors, _form(value, tensors, here)


def _form(value: Any, tensors: list[Tensor], here: torch.device | None) -> Hashable:
    import torch

    if isinstance(value, torch.Tensor):
        tensors.append(value)
        contents = () if here in (None, value.device) else tuple(value.flatten().tolist())
        return "tensor", tuple(value.shape), value.dtype, value.device, contents
    if type(value) in (tuple, list):
        return type(value), tuple(_form(part, tensors, here) for part in value)
    if type(value) is dict:
        return dict, tuple((key, _form(part, tensors, here)) for key, part in value.items())
    if isinstance(value, (*PLAIN, torch.dtype, torch.device, Enum)):
        return type(value), value
    return type(value), id(value)


def put_together(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return the value with the next of `tensors` in place of each of its own."""
    import torch

    if isinstance(value, torch.Tensor):
        return next(tensors)
    if type(value) in (tuple, list):
        return type(value)(put_together(part, tensors) for part in value)
    if type(value) is dict:
        return {key: put_together(part, tensors) for key, part in value.items()}
    return value


def remembered(value: Any) -> dict[str, Any]:
    """Return what an object and the objects in it remember, by where it stands: numbers, words, addresses of tensors.

    The contents of tensors are not in it. Equal before and after a call, nothing but contents has changed.
    """
    found: dict[str, Any] = {}
    _remember(value, "", found, set())
    return found


def _remember(value: Any, place: str, found: dict[str, Any], seen: set[int]) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        found[place] = value.data_ptr(), tuple(value.shape)
    elif isinstance(value, PLAIN):
        found[place] = value
    elif id(value) not in seen and not isinstance(value, type):
        seen.add(id(value))
        for name, part in _parts(value):
            _remember(part, f"{place}{name}" if place else name.lstrip("."), found, seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in list(value.items()))
    elif isinstance(value, list | tuple):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    elif hasattr(value, "__dict__"):
        yield from ((f".{name}", part) for name, part in list(vars(value).items()))


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Return the first place in which two memories differ; None where they are the same."""
    return next((place for place in {**before, **after} if before.get(place) != after.get(place)), None)
