"""What the flops pass gives: work by layer and phase, which adds up, and what could not be counted."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal, TypeVar

from layerprof.readings.layers import Chain, Key
from layerprof.records import Phase

Name = TypeVar("Name", bound=Hashable)

Amount = TypeVar("Amount", "Work", "Uncounted")


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs and bytes of a set of calls; adds up with `+` and `sum(..., Work())`.

    `flops` is executed work, 2 per multiply-accumulate, causal attention not halved, padding counted.
    `flops_useful` counts real tokens only; `flops_causal` halves what a causal mask hides. `bytes_*` is the least
    traffic: weights once a call, activations in and out of the layer, KV cache read and written. `tokens` are
    positions that calls were given, in all rows, padding counted; `kv` those whose keys and values attention may read:
    cached and new ones, an encoder's that a decoder attends to beside its own, summed over the attentions of a call
    that holds several.
    """

    calls: int = 0
    flops: int = 0
    flops_useful: int = 0
    flops_causal: int = 0
    bytes_weights: int = 0
    bytes_activations: int = 0
    bytes_kv: int = 0
    tokens: int = 0
    kv: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self.astuple(), other.astuple(), strict=True)))

    def __radd__(self, other: Literal[0]) -> Work:
        return self

    def astuple(self) -> tuple[int, ...]:
        """Return the fields in order."""
        figures: tuple[int, ...] = _FIGURES(self)
        return figures

    @property
    def bytes(self) -> int:
        """All traffic: weights, activations and KV cache."""
        return self.bytes_weights + self.bytes_activations + self.bytes_kv

    @property
    def tokens_per_call(self) -> float | None:
        """Mean over calls; None where none of them was given positions."""
        return self.tokens / self.calls if self.tokens and self.calls else None

    @property
    def kv_per_call(self) -> float | None:
        """Mean over calls; None where there was no attention in any of them."""
        return self.kv / self.calls if self.kv and self.calls else None


_FIGURES = attrgetter(*Work.__slots__)

NOT_WATCHED = "a step whose operators were not watched"

ELSEWHERE = "a call on another thread, whose operators were not watched"
UNSEEN_KERNEL = "a kernel that torch does not see"
"""Stand for the names of operators that nobody saw, in `WorkReading.uncounted`."""


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Calls of an operator that may do matrix work and has no formula; adds up with `+`.

    `seconds` are those that the host spent inside the calls, None where that is not how long they took: a GPU works
    behind the host's back.
    """

    calls: int = 0
    seconds: float | None = 0.0

    def __add__(self, other: Uncounted) -> Uncounted:
        unknown = self.seconds is None or other.seconds is None
        return Uncounted(self.calls + other.calls, None if unknown else (self.seconds or 0) + (other.seconds or 0))

    def __radd__(self, other: Literal[0]) -> Uncounted:
        return self


@dataclass(frozen=True, slots=True)
class WorkReading:
    """What the flops pass gives; adds up with `+` and `sum(...)`, and `WorkReading()` is no work at all.

    `layers[(name, phase)]` is the work inside each located layer (inside nested ones: of the innermost);
    `outside[(module path, phase)]` is what ran under no located layer; `total_flops` is counted on its own, op by
    op, without regard to layers. `uncounted[(layer or module path, phase, operator)]` are the calls of operators that
    may do matrix work and have no formula, of the innermost layer or module, too: where there are any, the FLOPs there
    are a lower bound.

    These are the books': they do not depend on which submodules were asked for. `nested[(names, phase)]` is the work of
    whole calls of the last of `names` in its phase, with everything that ran inside them, where the others are the
    located layers whose calls held them, outermost first: by what called what, not by module path. Bytes there are
    those of the layer itself: what crosses its own boundary, and each distinct weight once a call.
    `uncounted_inside` is `uncounted` of every layer whose call was running, by the phase of that call.
    """

    layers: dict[Key, Work] = field(default_factory=dict)
    outside: dict[Key, Work] = field(default_factory=dict)
    total_flops: int = 0
    uncounted: dict[tuple[str, Phase, str], Uncounted] = field(default_factory=dict)
    nested: dict[Chain, Work] = field(default_factory=dict)
    uncounted_inside: dict[tuple[str, Phase, str], Uncounted] = field(default_factory=dict)

    @property
    def whole(self) -> dict[Key, Work]:
        """Work of each layer's calls with everything that ran inside them; what calls itself has its work once."""
        if not self.nested:
            return dict(self.layers)
        total: dict[Key, Work] = {}
        for (chain, phase), work in self.nested.items():
            *around, name = chain
            more = Work(calls=work.calls, tokens=work.tokens) if name in around else work
            total[name, phase] = total.get((name, phase), Work()) + more
        return total

    def __add__(self, other: WorkReading) -> WorkReading:
        return WorkReading(
            layers=added(self.layers, other.layers),
            outside=added(self.outside, other.outside),
            total_flops=self.total_flops + other.total_flops,
            uncounted=added(self.uncounted, other.uncounted),
            nested=added(self.nested, other.nested),
            uncounted_inside=added(self.uncounted_inside, other.uncounted_inside),
        )

    def __radd__(self, other: Literal[0]) -> WorkReading:
        return self

    def uncounted_calls(self) -> dict[str, int]:
        """Return how often each operator without a formula ran, wherever it did."""
        calls: dict[str, int] = {}
        for (_, _, operator), missed in self.uncounted.items():
            calls[operator] = calls.get(operator, 0) + missed.calls
        return calls


def added(one: Mapping[Name, Amount], other: Mapping[Name, Amount]) -> dict[Name, Amount]:
    """Return the sum key by key, in the order of their first."""
    total = dict(one)
    for key, amount in other.items():
        total[key] = total[key] + amount if key in total else amount
    return total
