"""A sequence of kernels as numbers: one for each name, at each of three degrees of coarseness. Pure, numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from layerprof.trace.kernel_names import Does, coarse, does, numberless

Numbers = NDArray[np.int64]

EXACT, NUMBERLESS, COARSE = range(3)
"""Degrees of coarseness: the name itself, without numbers that tell copies of a kernel apart, its family."""

SPELLINGS: tuple[Callable[[str], str], ...] = (str, numberless, coarse)


@dataclass(slots=True)
class Kernels:
    """Kernels in the order in which they ran.

    `symbols[degree]` numbers their names, `kinds` says what they do (`Does`), `ns` how long they took.
    `numbers[degree]` gives the symbol of a name, for sequences that are laid beside this one.
    """

    symbols: tuple[Numbers, ...]
    kinds: Numbers
    ns: Numbers
    numbers: tuple[dict[str, int], ...] = field(repr=False)

    @classmethod
    def of(cls, names: Sequence[str], ns: Sequence[int]) -> Kernels:
        """Return the kernels with their names numbered; each distinct one is looked at once."""
        distinct: dict[str, int] = {}
        exact = np.fromiter((distinct.setdefault(name, len(distinct)) for name in names), np.int64, len(names))
        numbers, symbols = [], []
        for spelling in SPELLINGS:
            spelled: dict[str, int] = {}
            table = [spelled.setdefault(spelling(name), len(spelled)) for name in distinct]
            numbers.append(spelled)
            symbols.append(np.array(table, np.int64)[exact] if len(exact) else exact)
        kinds = np.array([does(name) for name in distinct], np.int64)[exact] if len(exact) else exact
        return cls(tuple(symbols), kinds, np.asarray(ns, np.int64), tuple(numbers))

    def __len__(self) -> int:
        return len(self.kinds)

    def part(self, start: int, end: int) -> Kernels:
        """Return a stretch of it, with the same numbers."""
        here = slice(start, end)
        return Kernels(tuple(s[here] for s in self.symbols), self.kinds[here], self.ns[here], self.numbers)

    def are(self, *kinds: Does) -> NDArray[np.bool_]:
        """Return where the kernels are of one of these kinds."""
        wanted = np.zeros(len(Does), np.bool_)
        wanted[list(kinds)] = True
        found: NDArray[np.bool_] = wanted[self.kinds]
        return found
