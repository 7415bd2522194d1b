"""Whose turn it is: the samples in the order of the walk, less those whose pictures turn out to be bad."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from layerprof.data.datasets import REPAIR, unreadable
from layerprof.data.pictures import UnreadableImageError, opened
from layerprof.data.spec import Shown
from layerprof.errors import LayerprofError, RequestError

if TYPE_CHECKING:
    from PIL import Image

    from layerprof.data.spec import Dataset, Example, Picture

LOOK_ON_S = 5.0
"""Seconds that other bad pictures are looked for when one ends the run."""
Taken = tuple[int, Shown]
"""A sample's place among the examples, and its pictures as RGB."""


class Order:
    """The order in which samples are asked; `bad` gives, by id, why those that were met and left out cannot be read.

    What was found in one walk holds for every other: a sample that is left out stays out, and one whose picture could
    be read once is never left out later, so that all walks are of the same samples. `unfit` says why a model cannot
    take pictures of these shapes, which counts as one that cannot be read; without `pictured` none is opened.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        pictured: bool,
        skip_bad: bool,
        unfit: Callable[[Shown], str | None] = lambda _shown: None,
    ) -> None:
        self._dataset, self._skip_bad, self._pictured, self._unfit = dataset, skip_bad, pictured, unfit
        self.bad: dict[str, str] = dict(dataset.bad)
        self._good: list[int] = []
        self._met = 0

    def __len__(self) -> int:
        """Return how many samples there are, as far as is known."""
        return len(self._dataset.examples) - self._met + len(self._good)

    def take(self, start: int, end: int) -> list[Taken]:
        """Open the pictures of the samples from the one to the other of the walk, both counted from 0; `end` is not in.

        Raises RequestError naming a sample whose picture cannot be read, unless those are left out. Then the ones
        before are looked at, too, where they were not yet: whose turn it is depends on them.
        """
        if not self._skip_bad:
            return [self._again(place) for place in range(start, min(end, len(self._dataset.examples)))]
        taken = [self._again(place) for place in self._good[start:end]]
        while len(self._good) < end and self._met < len(self._dataset.examples):
            place = self._met
            example = self._dataset.examples[place]
            try:
                shown = self._open(example)
            except UnreadableImageError as error:
                self._met += 1
                self.bad[example.id] = f"{_row(example)}: {error}"
                continue
            self._met += 1
            self._good.append(place)
            if len(self._good) > start:
                taken.append((place, shown))
        if not self._good and end > 0:
            raise self._nothing()
        return taken

    def _again(self, place: int) -> Taken:
        example = self._dataset.examples[place]
        try:
            return place, self._open(example)
        except UnreadableImageError as error:
            told = f"{_row(example)}: {error}"
            if self._skip_bad:
                raise RequestError(f"An image cannot be read which could be before: {told}.", REPAIR) from None
            raise unreadable(self._dataset.source, [told, *self._others(place + 1)]) from None

    def _others(self, start: int) -> Iterator[str]:
        """Look on for other pictures that cannot be read, for a while, so that one message names them."""
        end = time.monotonic() + LOOK_ON_S
        for example in self._dataset.examples[start:]:
            if time.monotonic() > end:
                return
            try:
                self._open(example)
            except UnreadableImageError as error:
                yield f"{_row(example)}: {error}"
            except LayerprofError:  # the source itself fails, which is not what is to be told here
                return

    def _open(self, example: Example) -> Shown:
        if not self._pictured:
            return Shown()
        several = len(example.pictures) > 1
        images = (_opened(one, f"image {n}" if several else "") for n, one in enumerate(example.pictures, 1))
        frames = (_opened(one, f"frame {n}") for n, one in enumerate(example.frames, 1))
        shown = Shown(tuple(images), tuple(frames))
        if (why := self._unfit(shown)) is not None:
            raise UnreadableImageError(why)
        return shown

    def _nothing(self) -> RequestError:
        first = "; ".join(list(self.bad.values())[:10])
        return RequestError(
            f"No sample of {self._dataset.source} is left: none of {len(self.bad)} images can be read: {first}.",
            "Give a source whose images can be read; they may be files next to the table or bytes inside it.",
        )


def _opened(picture: Picture, name: str) -> Image.Image:
    try:
        return opened(picture)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{name}: {error}" if name else str(error)) from None


def _row(example: Example) -> str:
    return f"sample {example.id}" if example.row is None else f"row {example.row} (id {example.id})"
