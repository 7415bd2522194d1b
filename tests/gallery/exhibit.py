"""What an exhibit is, and the list that the exhibits put themselves on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

Call = Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]
"""Makes the arguments of one call, anew each time."""

Drive = Callable[[Any], Any]
"""Runs inside the block on the model; what it returns must be the same with and without the profiler."""


@dataclass(frozen=True)
class Exhibit:
    """One awkward model and what its user does with it; its name is its function's.

    `calls` or `drive` is what happens inside the block; `plain` replaces `drive` in the run without the profiler, for
    drives that use profilers themselves. `around` is a context around the block; what it yields is compared, too.
    `flops` is the hand count, None for the reason in `no_count`; with `partly` a count that says it misses something
    will do. `again` is False where a repeat, which a user has to ask for, cannot be harmless; `prints` is True where
    what the user does prints something by itself.
    """

    build: Callable[[], nn.Module]
    calls: tuple[Call, ...] = ()
    drive: Drive | None = None
    plain: Drive | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    flops: int | None = None
    no_count: str = ""
    partly: bool = False
    training: bool = False
    grad: bool = False
    autocast: torch.dtype | None = None
    inference_mode: bool = False
    again: bool = True
    prints: bool = False
    name: str = ""

    def model(self) -> nn.Module:
        """Build the model in the mode that the exhibit wants."""
        return self.build().train(self.training)

    def run(self, model: nn.Module, *, plain: bool) -> Any:
        """Do what happens inside the block."""
        drive = self.plain if plain and self.plain else self.drive
        if drive is not None:
            return drive(model)
        made = [make() for make in self.calls]
        return [(args, kwargs, model(*args, **kwargs)) for args, kwargs in made]

    @contextmanager
    def surroundings(self) -> Iterator[Any]:
        """Enter what stands around the block."""
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(self.grad))
            if self.inference_mode:
                stack.enter_context(torch.inference_mode())
            if self.autocast is not None:
                stack.enter_context(torch.autocast("cpu", self.autocast))
            yield stack.enter_context(self.around())


EXHIBITS: dict[str, Callable[[], Exhibit]] = {}
"""Every exhibit's function, under its name."""


def shown(function: Callable[[], Exhibit]) -> Callable[[], Exhibit]:
    """Put an exhibit on show under the function's name."""

    def made() -> Exhibit:
        return replace(function(), name=function.__name__)

    if function.__name__ in EXHIBITS:
        raise ValueError(f"two exhibits are called {function.__name__}")
    EXHIBITS[function.__name__] = made
    return made


def call(make: Callable[[], Any]) -> Call:
    """Return a call's arguments: a dict is keywords, a tuple is several by position, all else is the only one."""

    def made() -> tuple[tuple[Any, ...], dict[str, Any]]:
        value = make()
        if isinstance(value, dict):
            return (), value
        return (value, {}) if isinstance(value, tuple) else ((value,), {})

    return made


class Through(nn.Module):
    """Any function of a module and its arguments as a `forward`, with the parts that the function uses."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with the module itself first."""
        return self.function(self, *args, **kwargs)


WIDTH, ROWS = 8, 3
LINEAR = 2 * ROWS * WIDTH * WIDTH
"""FLOPs of a square layer of WIDTH on ROWS rows: 2 a multiply-accumulate."""


def linear() -> nn.Linear:
    """Make the layer that most exhibits are made of: WIDTH to WIDTH."""
    return nn.Linear(WIDTH, WIDTH)


def rows() -> torch.Tensor:
    """Make the (ROWS, WIDTH) input that most exhibits take."""
    return torch.linspace(-1, 1, ROWS * WIDTH).reshape(ROWS, WIDTH)


one_call = (call(rows),)
two_calls = (call(rows), call(lambda: rows() * 0.5))
