"""A callable of a module (its `forward`, its `generate`) replaced for a while, and put back as it was.

What is put there is an attribute of the instance, where accelerate and PEFT put theirs. Copies of the module must not
go through it: one that is deep-copied, pickled or replicated for DataParallel meanwhile runs its own weights.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from layerprof.machine import internals
from layerprof.machine.modules import named, told

if TYPE_CHECKING:
    from torch import nn

Forward = Callable[..., Any]


class Laid:
    """What stands in a module's attribute: it is called like one function, and else looks like what it replaces.

    Every one has a class of its own, whose `__call__` is the function: so a call costs about as little as that of the
    function itself (the way through an attribute would cost as much again as a mark of the clock). Whoever asks what it
    is (inspect, torch.compile, torch.jit) is told of what it replaces, down to its class.
    """

    def __init__(self, module: nn.Module, name: str, original: Forward) -> None:
        functools.update_wrapper(self, original, updated=())  # type: ignore[arg-type]  # its class has the `__call__`
        self.place = module, name
        self.before = module.__dict__.get(name)
        self.alive = True
        self.displaced = False
        self._class = inspect.getattr_static(type(module), name, None)

    def refresh(self) -> None:
        """Stand for what the class has now, where somebody gave it another one since, or the module another class."""
        module, name = self.place
        if type(module.__dict__.get(name)).__base__ is not Laid:
            self.displaced = True
        # Of functions the class's attribute is the function itself; others are left, since to ask may do something.
        if self.before is not None or type(self._class) is not FunctionType:
            return
        now: Any = getattr(type(module), name, None)
        if now is self._class or not hasattr(now, "__get__"):
            return
        # What is called stands in a closure, where it costs least to reach: there it is changed.
        old, new = self.__dict__["__wrapped__"], now.__get__(module, type(module))
        for cell in type(self).__call__.__closure__ or ():
            if cell.cell_contents is old:
                cell.cell_contents = new
        self._class = now
        self.__dict__["__wrapped__"] = new

    @property  # type: ignore[misc]  # typeshed has it as a plain attribute
    def __class__(self) -> type:
        """The class of what is replaced, a bound method's mostly; `type()` gives the true one."""
        kind: type = self.__dict__["__wrapped__"].__class__
        return kind

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
        self._module = module
        self._laid: list[Laid] = []
        try:
            self._lay(name, make)
            if self.there and hasattr(module, internals.REPLICATE):
                self._lay("__getstate__", _state_without)
                self._lay(internals.REPLICATE, _replica_without)
        except BaseException:  # Ctrl-C in the midst of it
            self.remove()
            raise

    @property
    def there(self) -> bool:
        """Whether it could be put there; a class can forbid it."""
        return bool(self._laid)

    def refresh(self) -> None:
        """See to it that what is called is what the module's class has now."""
        if self._laid:
            self._laid[0].refresh()

    def remove(self) -> None:
        """Put back what was there."""
        for laid in self._laid:
            laid.alive = False
            _tidy(self._module, laid.place[1])

    def _lay(self, name: str, make: Callable[[Forward], Forward]) -> None:
        if not steady(self._module, name):
            return
        original = told(self._module, name)
        if not callable(original):  # a scripted list has no forward, and says so in its own way
            return
        kind = type("Laid", (Laid,), {"__call__": make(original), "__module__": __name__})
        laid: Laid = kind(self._module, name, original)
        self._laid.append(laid)
        try:
            object.__setattr__(self._module, name, laid)
        except AttributeError:  # a descriptor of the class that lets nothing be set
            self._laid.pop()


def steady(module: nn.Module, name: str) -> bool:
    """Tell whether an attribute gives the same whenever it is asked, and to ask does nothing: a property may not."""
    attribute = inspect.getattr_static(type(module), name, None)
    if name in vars(module) or attribute is None:  # None: what the module's `__getattr__` knows
        return True
    known = type(attribute).__module__.partition(".")[0] in ("torch", "builtins", "functools")
    return callable(attribute) or (known and not isinstance(attribute, property))


def _tidy(module: nn.Module, name: str) -> None:
    """Take away what of ours stands on top and is over; a live one above a dead one does so when its time comes.

    One that somebody took off meanwhile, and put back, was put there by them: what it stands for stays there.
    """
    while isinstance(top := module.__dict__.get(name), Laid) and not top.alive:
        before = top.__wrapped__ if top.displaced and top.before is None else top.before
        if before is None:
            object.__delattr__(module, name)
        else:
            object.__setattr__(module, name, before)


def _state_without(original: Forward) -> Forward:
    """Return what gives a module's state for its copies and pickles: the attributes as they are without us."""

    def state(_laid: Laid) -> Any:
        found = original()
        return _without(dict(found)) if isinstance(found, dict) else found

    return state


def _replica_without(original: Forward) -> Forward:
    """Return what makes a module's replicas for DataParallel, which take its attributes along."""

    def replicate(_laid: Laid) -> Any:
        replica = original()
        _without(replica.__dict__)
        return replica

    return replicate


def _without(attributes: dict[str, Any]) -> dict[str, Any]:
    """Take what we laid out of a module's attributes, and put in what stood there before; return them."""
    for name, value in list(attributes.items()):
        found = value
        while isinstance(found, Laid):
            found = found.before
        if found is None and value is not None:
            del attributes[name]
        elif found is not value:
            attributes[name] = found
    return attributes


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
