"""A callable of a module (its `forward`, its `generate`) replaced for a while, and put back as it was.

What is put there is an attribute of the instance, where accelerate and PEFT put theirs. Copies of the module must not
go through it: one that is deep-copied, pickled or replicated for DataParallel meanwhile runs its own weights.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layerprof.machine import internals
from layerprof.machine.modules import named

if TYPE_CHECKING:
    from torch import nn

Forward = Callable[..., Any]


class Laid:
    """What stands in a module's attribute: it is called like one function, and else looks like what it replaces.

    Every one has a class of its own, whose `__call__` is the function: so a call costs about as little as that of the
    function itself (the way through an attribute would cost as much again as a mark of the clock), and torch.compile
    sees through it.
    """

    def __init__(self, module: nn.Module, name: str, original: Forward) -> None:
        self.__wrapped__ = original
        self.place = module, name
        self.before = module.__dict__.get(name)
        self.alive = True

    def __getattr__(self, name: str) -> Any:
        """Look like what is replaced (`__self__`, `__code__`), or like what torch.compile made, where it did."""
        if not name.startswith("__") and hasattr(type(self).__call__, name):
            return getattr(type(self).__call__, name)
        if name in ("__deepcopy__", "__copy__", "__setstate__", "__getstate__"):
            raise AttributeError(name)
        return getattr(self.__dict__["__wrapped__"], name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Make copies and pickles of the module hold what stood here before, without a trace of us."""
        return (getattr, self.place) if self.before is None else (operator.getitem, ([self.before], 0))


def as_method(function: Forward) -> Forward:
    """Return a function as `Replaced` wants it, for one that knows nothing of what stands in the attribute."""

    @functools.wraps(function)
    def call(_laid: Laid, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


class Replaced:
    """`make(original)` in place of a module's callable attribute until `remove()`, which puts back what was there.

    What `make` gives is called as a method is, with what stands in the attribute as its first argument. What somebody
    else has laid around it meanwhile is left to them.
    """

    def __init__(self, module: nn.Module, make: Callable[[Forward], Forward], name: str = "forward") -> None:
        self._laid = [_lay(module, name, make)]
        if name == "forward" and hasattr(module, internals.REPLICATE):
            self._laid.append(_lay(module, internals.REPLICATE, _replicas_without(module)))
        self._module = module

    def remove(self) -> None:
        """Put back what was there."""
        for laid in self._laid:
            laid.alive = False
            _tidy(self._module, laid.place[1])


def _lay(module: nn.Module, name: str, make: Callable[[Forward], Forward]) -> Laid:
    original = getattr(module, name)
    kind = type("Laid", (Laid,), {"__call__": make(original), "__module__": __name__})
    laid: Laid = kind(module, name, original)
    object.__setattr__(module, name, laid)
    return laid


def _tidy(module: nn.Module, name: str) -> None:
    """Take away what of ours stands on top and is over; a live one above a dead one does so when its time comes."""
    while isinstance(top := module.__dict__.get(name), Laid) and not top.alive:
        if top.before is None:
            object.__delattr__(module, name)
        else:
            object.__setattr__(module, name, top.before)


def _replicas_without(module: nn.Module) -> Callable[[Forward], Forward]:
    """Return what makes DataParallel's replicas run their own `forward`: their attributes are the module's, copied."""

    def make(original: Forward) -> Forward:
        def replicate(_laid: Laid) -> Any:
            replica = original()
            for name in ("forward", internals.REPLICATE):
                while isinstance(top := replica.__dict__.get(name), Laid):
                    if top.before is None:
                        del replica.__dict__[name]
                    else:
                        replica.__dict__[name] = top.before
            return replica

        return replicate

    return make


def inside_compiled(model: nn.Module) -> set[str]:
    """Return the names of modules that run inside a region which torch.compile has been given already.

    Another `forward` there would make torch compile the region anew. A region is a module after `module.compile()`,
    what `torch.compile(module)` wraps, or what a compiled `forward` calls; its own module is then outside.
    """
    modules = list(named(model).items())
    regions: list[str] = []
    for name, module in modules:
        if internals.compiled_itself(module):
            regions.append(name)
        elif internals.compiled_function(module.__dict__.get("forward")):
            regions += [f"{name}.{child}" if name else child for child, _ in module.named_children()]
    below = tuple(f"{region}." if region else "" for region in regions)
    return {name for name, _ in modules if f"{name}.".startswith(below)}
