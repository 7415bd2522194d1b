"""What two runs have in common, sample by sample.

Times are of batches, and two runs may have batched the same samples otherwise. What is paired is therefore a bundle,
the smallest set of samples that is made of whole batches in both runs: a batch where both have the same batches, the
larger batch where one has batches of one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


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
    from scipy.cluster.hierarchy import DisjointSet

    shared = [name for name in before if name in after]
    batches = DisjointSet([("before", number) for number in before.values()])
    for number in after.values():
        batches.add(("after", number))
    for name in shared:
        batches.merge(("before", before[name]), ("after", after[name]))
    spoilt = {batches["before", before[name]] for name in before if name not in after}
    spoilt |= {batches["after", after[name]] for name in after if name not in before}
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in shared:
        groups[batches["before", before[name]]].append(name)
    return tuple(
        Bundle(
            tuple(sorted({before[name] for name in names})),
            tuple(sorted({after[name] for name in names})),
            tuple(names),
        )
        for key, names in groups.items()
        if key not in spoilt
    )
