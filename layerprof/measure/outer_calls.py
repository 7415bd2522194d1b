"""The outermost calls of a model: each is one batch, and can be made again."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    import torch
    from torch import nn

Around = Callable[[int], AbstractContextManager[Any]]

MOST_KEPT = 256
"""Calls whose arguments are held for a repeat; holding more could fill the memory with a user's batches."""

_repeating = ContextVar("_repeating", default=False)
"""Whether a call is a repeat, which is no call of the user's for any other profiler around the same model."""


@contextmanager
def _again() -> Iterator[None]:
    token = _repeating.set(True)
    try:
        yield
    finally:
        _repeating.reset(token)


@dataclass(frozen=True)
class Recorded:
    """One outermost call: its entrance, its arguments (held, not copied) and the random state before it."""

    entrance: Literal["generate", "forward"]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rng: torch.Tensor
    cuda_rng: list[torch.Tensor]


class Calls:
    """Wraps `model.generate` and `model()` so that each outermost call runs inside `around(index)`; undoes itself."""

    def __init__(self, model: nn.Module, around: Around, *, keep: bool = True) -> None:
        self.model = model
        self.around = around
        self.keep = keep
        self.count = 0
        self.rows = 0
        self.recorded: list[Recorded] = []
        self.overlapped = False
        self._depth = 0
        self._thread = 0

    def __enter__(self) -> Self:
        self._was: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}
        self._attached = True
        for entrance in ("generate", "forward"):
            original = getattr(self.model, entrance, None)
            if callable(original):
                self._was[entrance] = self.model.__dict__.get(entrance)
                self._ours[entrance] = self._wrapped(entrance, original)
                object.__setattr__(self.model, entrance, self._ours[entrance])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._attached = False
        for entrance, before in self._was.items():
            if self.model.__dict__.get(entrance) is not self._ours[entrance]:
                continue  # somebody laid a wrapper around ours, which lets every call through from now on
            if before is None:
                object.__delattr__(self.model, entrance)
            else:
                object.__setattr__(self.model, entrance, before)

    def _wrapped(self, entrance: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._attached or _repeating.get():
                return original(*args, **kwargs)
            if self._depth:
                self.overlapped |= self._thread != threading.get_ident()
                return original(*args, **kwargs)
            with self._outermost(entrance, args, kwargs):
                return original(*args, **kwargs)

        return call

    @contextmanager
    def _outermost(self, entrance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
        if self.keep and self.count < MOST_KEPT:
            self.recorded.append(Recorded(entrance, args, dict(kwargs), *_random_state()))
        index, self.count = self.count, self.count + 1
        self.rows += _rows(args, kwargs)
        self._depth += 1
        self._thread = threading.get_ident()
        try:
            with self.around(index):
                yield
        finally:
            self._depth -= 1

    def why_not_again(self) -> str:
        """Return why the calls cannot be repeated, empty when they can."""
        if self.model.training:
            return "the model is in training mode, where a repeat would change its state"
        if self.count > MOST_KEPT:
            return f"{self.count} calls were made and the arguments of only {MOST_KEPT} are held"
        held = [value for call in self.recorded for value in (*call.args, *call.kwargs.values())]
        if any(hasattr(value, "get_seq_length") for value in held):
            return "a call was given a KV cache, which it has changed since"
        return ""


def replay(model: nn.Module, calls: Sequence[Recorded], around: Around) -> None:
    """Make the calls again under `torch.no_grad()`, from the same random state, each inside `around(index)`."""
    import torch

    cuda = torch.cuda.is_available()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ()), torch.no_grad():
        for index, call in enumerate(calls):
            torch.set_rng_state(call.rng)
            if cuda:
                torch.cuda.set_rng_state_all(call.cuda_rng)
            kwargs = {name: value for name, value in call.kwargs.items() if name != "streamer"}
            entrance = model.generate if call.entrance == "generate" else model
            with _again(), around(index):
                entrance(*call.args, **kwargs)  # type: ignore[operator]  # nn.Module.__getattr__ is typed as a tensor


def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    import torch

    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _rows(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return the batch size as the first tensor's first dimension; token ids are asked before anything else."""
    tokens = [kwargs[name] for name in ("input_ids", "inputs", "inputs_embeds") if name in kwargs]
    for value in (*tokens, *args, *kwargs.values()):
        shape = getattr(value, "shape", None)
        if shape is not None and len(shape) > 0:
            return int(shape[0])
    return 1
