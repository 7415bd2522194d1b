"""The calls of a user's model: each outermost one is a batch, each pass through the model's `forward` a step of it.

Whoever observes them does so beside them: what the model gives and raises is handed on as it is, and what goes wrong in
observing is kept, never raised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from layerprof.errors import described
from layerprof.machine import internals
from layerprof.machine.modules import told
from layerprof.models.arguments import rows_of
from layerprof.models.packed import paged
from layerprof.models.patch import Forward, Laid, Replaced, steady

if TYPE_CHECKING:
    from torch import nn

Entrance = Literal["generate", "generate_batch", "forward"]
ENTRANCES: tuple[Entrance, ...] = ("generate", "generate_batch", "forward")
Context = AbstractContextManager[Any]

_repeating = ContextVar("_repeating", default=False)
"""Whether a call is a repeat, which is no call of the user's for any other profiler around the same model."""


@contextmanager
def repeating() -> Iterator[None]:
    """Make calls that are no calls of the user's."""
    token = _repeating.set(True)
    try:
        yield
    finally:
        _repeating.reset(token)


class Observer(Protocol):
    """What is told of calls. An exception that comes through a context ended the call."""

    def call(self, entrance: Entrance, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Context:
        """Return what stands around an outermost call."""

    def step(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Context:
        """Return what stands around a pass through `forward`."""

    def answered(self, entrance: Entrance, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> bool:
        """Take note of what an outermost call gave; tell whether the call was measured."""


class Calls:
    """Stands around `model.generate`, `model.generate_batch` and `model()` while it is entered; tells of each call.

    `rows` counts the rows of the outermost calls that were `answered`, `failed` holds what the others raised, and
    `troubles` what the observer did. `overlapped` counts passes that another thread began meanwhile: they are part
    of the call that was running. `generate_batch` makes its passes on a thread of its own, which are its steps.
    """

    def __init__(self, model: nn.Module, observer: Observer) -> None:
        self.model = model
        self.observer = observer
        self.rows = 0
        self.answered = 0
        self.failed: list[str] = []
        self.troubles: list[BaseException] = []
        self.overlapped = 0
        self._attached = False
        self._laid: list[Replaced] = []
        self._claims = threading.Lock()
        self._running = self._batching = False
        self._thread = self._helper = 0

    def __enter__(self) -> Self:
        self._attached = True
        for entrance in ENTRANCES:
            # A compiled model goes another way than through its `forward`, which is inside what was compiled.
            place = internals.COMPILED_CALL if entrance == "forward" and self._compiled else entrance
            if steady(self.model, place) and callable(told(self.model, place)):
                self._laid.append(Replaced(self.model, self._standing(entrance), place))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._attached = False
        while self._laid:
            self._laid[-1].remove()
            self._laid.pop()

    @property
    def _compiled(self) -> bool:
        return internals.compiled_itself(self.model)

    def _standing(self, entrance: Any) -> Callable[[Forward], Forward]:
        import torch

        compiling = torch.compiler.is_dynamo_compiling
        tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]  # documented, not in its `__all__`

        def make(original: Forward) -> Forward:
            def call(laid: Laid, *args: Any, **kwargs: Any) -> Any:
                # What torch traces, with either compiler, is to hold the model's own operators and no others.
                if compiling() or tracing() or not self._attached or _repeating.get():
                    return original(*args, **kwargs)
                laid.refresh()
                return self._seen(entrance, original, args, kwargs)

            return call

        return make

    def _seen(self, entrance: Entrance, original: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outermost = self._claim(entrance)
        if not outermost and not self._own_thread(kwargs):
            self.overlapped += 1
            return original(*args, **kwargs)
        contexts: list[Callable[[], Context]] = []
        if outermost:
            contexts.append(lambda: self.observer.call(entrance, args, kwargs))
        if entrance == "forward":
            contexts.append(lambda: self.observer.step(args, kwargs))
        try:
            with _Beside(contexts, self.troubles):
                output = original(*args, **kwargs)
                if outermost:
                    self._answered(entrance, args, kwargs, output)
                return output
        except BaseException as error:
            if outermost:
                self.failed.append(described(error))
            raise
        finally:
            if outermost:
                self._running = False

    def _claim(self, entrance: Entrance) -> bool:
        """Become the outermost call, unless another one is."""
        with self._claims:
            if self._running:
                return False
            self._running, self._thread = True, threading.get_ident()
            self._batching, self._helper = entrance == "generate_batch", 0
            return True

    def _own_thread(self, kwargs: Mapping[str, Any]) -> bool:
        """Tell whether the running call makes a pass: on the thread that began it, or on the one that it batches on."""
        here = threading.get_ident()
        if here == self._thread:
            return True
        if self._batching and not self._helper and paged(kwargs):
            self._helper = here
        return here == self._helper

    def _answered(self, entrance: Entrance, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        try:
            with internals.unseen():
                if self.observer.answered(entrance, args, kwargs, output):
                    self.answered += 1
                    self.rows += _rows(entrance, args, kwargs)
        except Exception as trouble:
            self.troubles.append(trouble)


def _rows(entrance: Entrance, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return how many rows a call was given: of `generate_batch`, prompts."""
    if entrance != "generate_batch":
        return rows_of(args, kwargs) or 1
    prompts = kwargs["inputs"] if "inputs" in kwargs else args[0]
    return len(prompts)


class _Beside:
    """Contexts whose own failures are kept, so that what runs inside neither sees nor suffers them."""

    def __init__(self, make: list[Callable[[], Context]], troubles: list[BaseException]) -> None:
        self._make = make
        self._troubles = troubles
        self._open: list[Context] = []

    def __enter__(self) -> None:
        try:
            with internals.unseen():
                for make in self._make:
                    context = make()
                    context.__enter__()
                    self._open.append(context)
        except Exception as trouble:
            self._troubles.append(trouble)
        except BaseException as stop:  # Ctrl-C while we were at it: the user's, once what is open is closed
            self.__exit__(type(stop), stop, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            try:
                with internals.unseen():
                    self._open.pop().__exit__(kind, error, trace)
            except Exception as trouble:
                if trouble is not error:
                    self._troubles.append(trouble)
