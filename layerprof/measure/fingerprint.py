"""Whether a model is the one that it was: its parts, their classes, and what their attributes hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from layerprof.models.patch import Laid

if TYPE_CHECKING:
    from torch import nn

CONTAINERS = (list, dict, set, deque)
PLAIN = (bool, int, float, str, type(None))

SHARE = 0.1
"""Of the time of the user's loop that fingerprints may take."""


def fingerprint(model: nn.Module) -> int:
    """Return a number that changes with what the model's work depends on, as far as its attributes tell.

    Modules and functions are told by identity, tensors by shape and dtype, plain values by themselves, other objects by
    their class.
    """
    return hash(tuple((id(m), id(type(m)), *_held(vars(m))) for m in model.modules()))


def _held(attributes: Mapping[str, Any]) -> Iterator[Hashable]:
    for name, value in attributes.items():
        if isinstance(value, Laid):
            continue
        yield name
        for part in (value, *parts(value)) if type(value) in CONTAINERS else (value,):
            yield _told(part)


def _told(value: Any) -> Hashable:
    import torch

    if type(value) in PLAIN:
        return id(type(value)), value
    if type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_nested:
        return value.shape, value.dtype
    return id(value) if callable(value) else id(type(value))


def parts(container: Any) -> Sequence[Any]:
    """Return what a container holds."""
    return list(container.values() if isinstance(container, dict) else container)


class Stamp:
    """The fingerprint of a model, taken before each call as long as that costs little beside the calls."""

    def __init__(self, model: nn.Module, clock: Callable[[], float] = perf_counter) -> None:
        self._model = model
        self._clock = clock
        self._began: float | None = None
        self._spent = 0.0
        self._last = 0

    def now(self) -> int:
        """Return it, or the last one where to take it again would cost more than its share."""
        came = self._clock()
        if self._began is None:
            self._began = came
        elif self._spent > SHARE * (came - self._began):
            return self._last
        self._last = fingerprint(self._model)
        self._spent += self._clock() - came
        return self._last
