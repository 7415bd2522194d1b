"""What two runs have in common, sample by sample, and intervals of paired differences. Pure numpy.

Times are of batches, and two runs may have batched the same samples otherwise. What is paired is therefore a bundle,
the smallest set of samples that is made of whole batches in both runs: a batch where both have the same batches, the
larger batch where one has batches of one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 0
MOST_VALUES = 20_000_000
"""Entries of the table of draws held at once: 80 MB."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Samples that are whole batches in both runs: batch numbers in the one, in the other, and the samples' ids."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    ids: tuple[str, ...]


def bundles(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[Bundle, ...]:
    """Return the bundles of two runs, each given as sample id -> batch.

    Batches with samples that one run lacks are left out.
    """
    parent: dict[tuple[str, int], tuple[str, int]] = {}

    def root(node: tuple[str, int]) -> tuple[str, int]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    shared = [name for name in before if name in after]
    for name in shared:
        parent[root(("a", before[name]))] = root(("b", after[name]))
    spoilt = {root(("a", before[name])) for name in before if name not in after}
    spoilt |= {root(("b", after[name])) for name in after if name not in before}
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in shared:
        groups[root(("a", before[name]))].append(name)
    return tuple(
        Bundle(
            tuple(sorted({before[name] for name in names})),
            tuple(sorted({after[name] for name in names})),
            tuple(names),
        )
        for key, names in groups.items()
        if key not in spoilt
    )


@dataclass
class Draws:
    """Bootstrap resamples of n bundles, drawn once and used for every quantity: their intervals belong together."""

    n: int
    counts: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        times = max(200, min(RESAMPLES, MOST_VALUES // max(self.n, 1)))
        random = np.random.default_rng(SEED)
        self.counts = random.multinomial(self.n, np.full(self.n, 1 / self.n), times).astype(np.float32)

    def ratio(self, over: Sequence[float], under: Sequence[float]) -> tuple[float, float] | None:
        """Return the 95 % interval of sum(over) / sum(under), rows resampled together; None for fewer than two rows."""
        return self._interval([self._sums(over)], [self._sums(under)])

    def difference_of_rates(
        self, after: tuple[Sequence[float], Sequence[float]], before: tuple[Sequence[float], Sequence[float]]
    ) -> tuple[float, float] | None:
        """Return the 95 % interval of sum/sum of the one minus sum/sum of the other."""
        return self._interval(
            [self._sums(after[0]), self._sums(before[0])], [self._sums(after[1]), self._sums(before[1])]
        )

    def _sums(self, values: Sequence[float]) -> Floats:
        return np.asarray(self.counts @ np.asarray(values, dtype=np.float64), dtype=np.float64)

    def _interval(self, over: list[Floats], under: list[Floats]) -> tuple[float, float] | None:
        if self.n < 2:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = [a / b for a, b in zip(over, under, strict=True)]
        values = rates[0] if len(rates) == 1 else rates[0] - rates[1]
        finite = values[np.isfinite(values)]
        if not len(finite):
            return None
        low, high = np.percentile(finite, [2.5, 97.5])
        return float(low), float(high)
