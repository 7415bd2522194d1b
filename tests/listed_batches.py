"""Batches that are there already, where a run asks for those of its samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from layerprof.data.batching import Batch, Batches
from layerprof.measure.session import Session


def first_batch(session: Session) -> Batch:
    """Make the first batch of a session."""
    return next(session.asked.batches.some((0,)))


class Listed:
    """The given batches, in their order."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches
        self.bad: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def walk(self) -> Iterator[Batch]:
        """Give all of them."""
        return self.some(range(len(self)))

    def some(self, numbers: Iterable[int]) -> Iterator[Batch]:
        """Give these."""
        return (self.batches[number] for number in numbers)


def listed(batches: Iterable[Batch]) -> Batches:
    """Return batches that a session can be asked for."""
    made: Any = Listed(tuple(batches))
    return cast("Batches", made)
