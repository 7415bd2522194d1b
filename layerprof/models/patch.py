"""A module's `forward` replaced for a while, and put back as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layerprof.machine import internals

if TYPE_CHECKING:
    from torch import nn

Forward = Callable[..., Any]


class Replaced:
    """`make(forward)` in place of a module's `forward`, until `remove()`.

    It stands on the instance, where accelerate and PEFT put theirs: whatever was there before comes back. What somebody
    else has laid around it meanwhile is left to them.
    """

    def __init__(self, module: nn.Module, make: Callable[[Forward], Forward]) -> None:
        self._module = module
        self._before = module.__dict__.get("forward")
        self._ours = make(module.forward)
        object.__setattr__(module, "forward", self._ours)

    def remove(self) -> None:
        """Put back what was there."""
        if self._module.__dict__.get("forward") is not self._ours:
            return
        if self._before is None:
            object.__delattr__(self._module, "forward")
        else:
            object.__setattr__(self._module, "forward", self._before)


def inside_compiled(model: nn.Module) -> set[str]:
    """Return the names of modules that run inside a region which torch.compile has been given already.

    Another `forward` there would make torch compile the region anew. A region is a module after `module.compile()`,
    what `torch.compile(module)` wraps, or what a compiled `forward` calls; its own module is then outside.
    """
    modules = list(model.named_modules(remove_duplicate=False))
    regions: list[str] = []
    for name, module in modules:
        if internals.compiled_itself(module):
            regions.append(name)
        elif internals.compiled_function(module.__dict__.get("forward")):
            regions += [f"{name}.{child}" if name else child for child, _ in module.named_children()]
    below = tuple(f"{region}." if region else "" for region in regions)
    return {name for name, _ in modules if f"{name}.".startswith(below)}
