"""Hooks by name: the entry-point group `layerprof.hooks`, or an import path `package.module:Class`.

Nothing in layerprof imports an instrument statically, so ours and a user's own are found the same way. What is loaded
is typed by a Protocol all the same: a `Kind` joins a name to the type that stands behind it. Kinds of walks are here,
those of energy in `energy.instruments`, the profiler's in `trace.probe`. Report formats are found in the same way, in a
group of their own.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast

from layerprof.errors import RequestError, did_you_mean
from layerprof.readings import KernelReading, Layer, MemoryReading, SpanReading, WorkReading
from layerprof.records import Phase

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUP = "layerprof.hooks"
METHODS = ("__enter__", "__exit__", "batch", "reading")
NOT_CALLED = "it cannot be called with (model, layers)"

T = TypeVar("T")


# --- what a hook is ---------------------------------------------------------------------------------------------------


class Attached(Protocol):
    """Something that clips onto a live model with `with`, and takes itself off, also on an exception."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...


class Steps(Protocol):
    """Counts decode steps."""

    step: int


class Hook(Attached, Protocol):
    """An instrument: attach with `with hook:`, wrap each `generate()` in `with hook.batch(b):`, then read it."""

    def batch(self, index: int) -> AbstractContextManager[Any]:
        """Return a context manager around one batch's `generate()`."""

    def reading(self) -> Any:
        """Return what was read. Valid after `__exit__`."""


class Refreshed(Protocol):
    """What stands in a model's attributes, and can be told to follow what its classes have become since."""

    def refresh(self) -> None:
        """Follow them."""


class Followed(Protocol):
    """Is told of decode steps that are captured and replayed, in which no layer is called."""

    def captured(self) -> AbstractContextManager[Any]:
        """Return a context around the capture of a step: layers are called, and nothing that they launch runs."""

    def replayed(self, captured: Any) -> AbstractContextManager[None]:
        """Return a context around one replay; `captured` is what the context of its capture gave."""


class SpanHook(Attached, Refreshed, Followed, Protocol):
    """Takes the time of each call of each layer. `tracker.step` is the decode step that runs, or ran last."""

    @property
    def tracker(self) -> Steps:
        """What tells phases and steps."""

    def batch(self, index: int, prompt: int | None = None) -> AbstractContextManager[Any]:
        """Return a context manager around one batch's `generate()`; `prompt` are its prompt's positions, if known."""

    def reading(self, batches: int | None = None) -> SpanReading:
        """Return the spans, of the first `batches` batches where it is given."""

    def forget(self, after: int = 0) -> None:
        """Forget the batches after the first so many."""


class ShapeHook(Attached, Refreshed, Protocol):
    """Counts FLOPs and bytes from the shapes of what runs.

    `guard(operator, args, kwargs)` is called before an operator that writes, and may raise to keep it from running.
    `spent_s` is what counting took so far, `failure` the last thing that went wrong in it.
    """

    guard: Callable[[Any, tuple[Any, ...], dict[str, Any]], None] | None

    @property
    def failure(self) -> Exception | None:
        """What went wrong in counting; the calls went on."""

    @property
    def spent_s(self) -> float:
        """Seconds that counting took beside the operators."""

    def followed(self, index: int, prompt: int | None = None) -> AbstractContextManager[None]:
        """Return a context manager around one batch in which nothing is counted but while it is `watching()`."""

    def watching(self) -> AbstractContextManager[None]:
        """Return a context manager in which what this thread runs is counted, and runs as it would without."""

    def looking_away(self) -> AbstractContextManager[bool]:
        """Return a context manager inside `watching()` in which nothing is; it gives whether that can be."""

    def take(self) -> WorkReading:
        """Return what was counted since this was last asked."""

    def attention(self) -> dict[tuple[str, Phase], int]:
        """Return the attention's part of each layer's FLOPs."""

    def batch(
        self, index: int, prompt: int | None = None, *, attention_mask: Tensor | None = None
    ) -> AbstractContextManager[Any]:
        """Return a context manager around one batch's `generate()`; the mask (rows, positions) tells the padding."""

    def reading(self) -> WorkReading:
        """Return the work of each layer and phase."""


class KernelHook(Attached, Followed, Protocol):
    """Records which layer launched the work that ran. `files` are the traces that it wrote, by label."""

    files: dict[str, Path]

    def batch(self, index: int) -> AbstractContextManager[Any]:
        """Return a context manager around one batch's `generate()`."""

    def reading(self) -> KernelReading:
        """Return the kernels of each layer and phase."""


class MemoryHook(Attached, Protocol):
    """Watches the peak of the device's memory. `reason` says why there is no reading."""

    reason: str | None

    def reading(self) -> int | None:
        """Return the peak in bytes, None where nothing tells it."""


class LayerMemoryHook(Attached, Protocol):
    """Follows what each layer's calls hold in memory. `failure` is what went wrong last; the calls went on."""

    @property
    def failure(self) -> Exception | None:
        """What went wrong."""

    def batch(
        self, index: int, prompt: int | None = None, *, given: Mapping[str, Any] | None = None, times: int = 1
    ) -> AbstractContextManager[Any]:
        """Return a context manager around one batch's `generate()`, which stands for so many `times` as much.

        `given` are its tensors.
        """

    def restart(self) -> None:
        """Forget the walk's peak so far, inside a batch."""

    def reading(self) -> MemoryReading:
        """Return what was read so far."""


class MakesHook(Protocol):
    """What a user's own hook is: a class or function of `(model, layers)`."""

    def __call__(self, model: nn.Module, layers: Sequence[Layer]) -> Hook:
        """Return the hook, not yet attached."""


class MakesSpanHook(Protocol):
    """`device` is 'cpu' or 'cuda:N'; its clock is used. `note(slot, phase, args, kwargs)` is told of each call."""

    def __call__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        *,
        device: str,
        note: Callable[[int, Phase, tuple[Any, ...], dict[str, Any]], None] | None = None,
    ) -> SpanHook:
        """Return the instrument."""


class MakesShapeHook(Protocol):
    """Any device."""

    def __call__(self, model: nn.Module, layers: Sequence[Layer]) -> ShapeHook:
        """Return the instrument."""


class MakesKernelHook(Protocol):
    """`folder` takes the traces."""

    def __call__(self, model: nn.Module, layers: Sequence[Layer], *, device: str, folder: Path) -> KernelHook:
        """Return the instrument."""

    def recorded_before(self) -> bool:
        """Tell whether this process has recorded a GPU, which slows what comes after."""


class MakesLayerMemoryHook(Protocol):
    """`device` is 'cpu' or 'cuda:N'; `size` gives the bytes of a tensor's storage where the storage does not."""

    def __call__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        *,
        device: str = "cpu",
        size: Callable[[Tensor], int] | None = None,
    ) -> LayerMemoryHook:
        """Return the instrument."""


class MakesMemoryHook(Protocol):
    """`device` is 'cpu' or 'cuda:N'."""

    def __call__(self, device: str) -> MemoryHook:
        """Return the instrument."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """The name of a registered instrument, and (for the type checker) what `load` gives for it."""

    name: str


LATENCY: Kind[MakesSpanHook] = Kind("latency")
SHAPES: Kind[MakesShapeHook] = Kind("shapes")
KERNELS: Kind[MakesKernelHook] = Kind("kernels")
MEMORY: Kind[MakesMemoryHook] = Kind("memory")
LAYER_MEMORY: Kind[MakesLayerMemoryHook] = Kind("layer_memory")


# --- how it is found --------------------------------------------------------------------------------------------------


def names(group: str = GROUP) -> tuple[str, ...]:
    """Return the names of all that is installed in a group, sorted; the hooks' unless another is given."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def load(kind: Kind[T]) -> T:
    """Return the class or function that is registered for a kind. Raises RequestError when it cannot be loaded."""
    return cast(T, find(kind.name))


def find(name: str, group: str = GROUP, what: str = "hook") -> object:
    """Return what is registered as `name` in a group, or imported from `package.module:Class`; messages call it `what`.

    Raises RequestError when the name is not registered, or its module cannot be imported.
    """
    found = entry_points(group=group, name=name)
    point = min(found, key=lambda one: not one.value.startswith("layerprof."), default=None)  # our names stay ours
    if point is None and ":" in name and EntryPoint.pattern.match(name):
        point = EntryPoint(name=name, value=name, group=group)
        _see_current_folder()
    if point is None:
        known = names(group)
        raise RequestError(
            f"No {what} is called '{name}'.",
            f"{did_you_mean(name, known)}Installed: {', '.join(known) or 'none (reinstall layerprof)'}; "
            "your own can be given as package.module:Class.",
        )
    try:
        target: Any = importlib.import_module(point.module)
        for part in point.attr.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise RequestError(
            f"The {what} '{name}' cannot be loaded from {point.value}: {error}.",
            "Install the package that holds it, or correct the import path.",
        ) from error
    except (Exception, SystemExit) as error:  # a module of the user's may do anything while it is imported
        raise RequestError(
            f"The {what} '{name}' cannot be loaded: importing {point.module} raised {type(error).__name__}: {error}.",
            f"Correct the module until `python -c 'import {point.module}'` works.",
        ) from error
    return cast(object, target)


def _see_current_folder() -> None:
    """Let a module beside the user be imported, as `python -m` does; last, so that it hides no package."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def load_own(name: str) -> MakesHook:
    """Return what `find` does, once it looks like a hook that a run can walk with.

    Raises RequestError before anything is measured for what is no class or function of `(model, layers)`, and for a
    class without the methods that a walk calls.
    """
    target = find(name)
    lacks = [method for method in METHODS if isinstance(target, type) and not callable(getattr(target, method, None))]
    problem = f"it has no {', no '.join(lacks)}" if lacks else "" if _takes_two(target) else NOT_CALLED
    if problem:
        raise RequestError(
            f"'{name}' cannot be used as --hook: {problem}.",
            "docs/hooks.md shows a hook; of the installed ones shapes, latency and kernels can walk by themselves.",
        )
    return cast(MakesHook, target)


def _takes_two(target: Any) -> bool:
    try:
        inspect.signature(target).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # written in C: it does not tell
        return True
    return True
