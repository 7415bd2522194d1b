"""What two runs have in common, sample by sample.

A sample is told by its key, a hash of what was asked, of the picture and of the references (`records.Sample`): not by
its place, nor by its id, which another version of a dataset may give to another question. Runs from before there were
keys go by ids.

Times are of batches, and two runs may have batched the same samples otherwise. What is paired is therefore a bundle,
the smallest set of samples that is made of whole batches in both runs: a batch where both have the same batches, the
larger batch where one has batches of one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from layerprof.records import Sample

Name = tuple[str, int]
"""What tells a sample within its run: its key, or id, and how many like it come before it."""

Told = TypeVar("Told", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Match:
    """The samples of two runs, each by its name: at which place in its run it stands.

    `shared` are those in both. `by_key` says how they are told; `renamed` counts ids that stand in both runs and not
    for the same sample.
    """

    first: Mapping[Name, int]
    second: Mapping[Name, int]
    by_key: bool
    shared: tuple[Name, ...]
    renamed: int = 0

    @property
    def same(self) -> bool:
        """Whether both runs answered the same samples."""
        return bool(self.shared) and len(self.shared) == len(self.first) == len(self.second)

    @property
    def places(self) -> tuple[list[int], list[int]]:
        """Where the shared samples stand in the one and in the other run."""
        return [self.first[name] for name in self.shared], [self.second[name] for name in self.shared]


def match(first: Sequence[Sample], second: Sequence[Sample]) -> Match:
    """Return which samples of two runs are the same; one that a run holds twice is matched with two like it."""
    by_key = all(sample.key for sample in (*first, *second))
    one, other = ({name: place for place, name in enumerate(_names(rows, by_key))} for rows in (first, second))
    shared = tuple(name for name in one if name in other)
    return Match(one, other, by_key, shared, _renamed(first, second) if by_key else 0)


def _names(samples: Iterable[Sample], by_key: bool) -> Iterator[Name]:
    seen: Counter[str] = Counter()
    for sample in samples:
        told = (sample.key if by_key else None) or sample.id
        yield told, seen[told]
        seen[told] += 1


def _renamed(first: Sequence[Sample], second: Sequence[Sample]) -> int:
    keys: tuple[dict[str, set[str | None]], ...] = (defaultdict(set), defaultdict(set))
    for found, samples in zip(keys, (first, second), strict=True):
        for sample in samples:
            found[sample.id].add(sample.key)
    return sum(not (keys[0][name] & keys[1][name]) for name in keys[0] if name in keys[1])


@dataclass(frozen=True, slots=True)
class Bundle(Generic[Told]):
    """Samples that are whole batches in both runs: batch numbers in the one, in the other, and the samples' names."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    names: tuple[Told, ...]


def bundles(before: Mapping[Told, int], after: Mapping[Told, int]) -> tuple[Bundle[Told], ...]:
    """Return the bundles of two runs, each given as sample's name -> batch.

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
    groups: dict[tuple[str, int], list[Told]] = defaultdict(list)
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
