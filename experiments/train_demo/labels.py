"""What each image token should say: labels for the cells of a drawn scene."""

from __future__ import annotations

import string
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerprof.demo.drawing import BACKGROUND_COLORS, CANVAS, OBJECT_COLORS, SHAPES, Scene, Word, shape_mask

CELL = 28
"""Pixels a side of one image token."""
LETTERS = string.ascii_uppercase
PROBES = 6
"""Points a side at which the coverage of a cell is sampled."""
NEAR = 0.12
"""Of a cell: a letter whose middle is this close to a border may be seen on either side of it."""
PLAIN = 0.1
"""Weight of a cell that shows only background."""


@dataclass(frozen=True)
class View:
    """A side x side window, in pixels, at (left, top) of the canvas magnified by `scale`."""

    side: int
    scale: float
    left: int = 0
    top: int = 0

    @property
    def cells(self) -> int:
        """Image tokens a side."""
        return self.side // CELL

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Turn a point of the canvas into (row, column), in cells."""
        return (y * self.scale - self.top) / CELL, (x * self.scale - self.left) / CELL


def whole(side: int) -> View:
    """View the full canvas at a size."""
    return View(side, side / CANVAS)


@dataclass(frozen=True)
class Labels:
    """Per image token in raster order: two target tokens (equal when there is one), weight, letter index or -1."""

    first: Tensor
    second: Tensor
    weight: Tensor
    index: Tensor


def stacked(labels: list[Labels]) -> Labels:
    """Join the labels of single images, shape (N,) each, to those of a batch, (B, N)."""
    return Labels(*(torch.stack([getattr(one, field.name) for one in labels]) for field in fields(Labels)))


class Labeller:
    """Scene and view -> labels, as ids of the tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        names = [*OBJECT_COLORS, *BACKGROUND_COLORS, *SHAPES]
        texts = {**{letter: letter for letter in LETTERS}, **{name: f" {name}" for name in names}}
        self.ids: dict[str, int] = {}
        for name, text in texts.items():
            (self.ids[name],) = tokenizer.encode(text, add_special_tokens=False)

    def __call__(self, scene: Scene, view: View) -> Labels:
        """Label every cell of the view."""
        sheet = _Sheet(view, self.ids, scene.background)
        sheet.things(scene)
        for word in scene.words:
            sheet.word(word)
        arrays = (sheet.first, sheet.second, sheet.weight, sheet.index)
        return Labels(*(torch.from_numpy(array.reshape(-1)) for array in arrays))


class _Sheet:
    """The labels of one view while they are filled in; arrays are (cells, cells)."""

    def __init__(self, view: View, ids: dict[str, int], background: str) -> None:
        self.view, self.ids = view, ids
        shape = (view.cells, view.cells)
        self.first = np.full(shape, ids[background])
        self.second = self.first.copy()
        self.weight = np.full(shape, PLAIN, np.float32)
        self.index = np.full(shape, -1)
        self.letters = np.zeros(shape, int)

    def inside(self, row: float, column: float) -> bool:
        return 0 <= row < self.view.cells and 0 <= column < self.view.cells

    def word(self, word: Word) -> None:
        """Give each letter to the cell that holds its middle; two letters in one cell share it."""
        row, column = self.view.place(word.x, word.y)
        begun = row >= 0 and column >= 0
        for position, letter in enumerate(word.text):
            row, column = self.view.place(*word.center(position))
            if not self.inside(row, column):
                continue
            self._doubt(row, column)
            at = int(row), int(column)
            if not self.letters[at]:
                self.first[at] = self.ids[letter]
                self.weight[at] = 1.0 if self._complete(word, row, column) else 0.0
                self.index[at] = position if begun else -1
            self.second[at] = self.ids[letter]
            self.letters[at] += 1

    def _complete(self, word: Word, row: float, column: float) -> bool:
        """Tell whether the view cuts nothing off the glyph around (row, column)."""
        cell = word.pixel * self.view.scale / CELL
        corners = (row - 3.5 * cell, column - 2.5 * cell, row + 3.5 * cell, column + 2.5 * cell)
        return min(corners) >= 0 and max(corners) <= self.view.cells

    def _doubt(self, row: float, column: float) -> None:
        """Ask nothing of the cell next to a letter that sits close to the border."""
        for down, right in ((-NEAR, 0.0), (NEAR, 0.0), (0.0, -NEAR), (0.0, NEAR)):
            at = int(row + down), int(column + right)
            neighbour = at != (int(row), int(column)) and self.inside(row + down, column + right)
            if neighbour and not self.letters[at]:
                self.weight[at] = 0.0

    def things(self, scene: Scene) -> None:
        """Give each cell to the shape that covers a fifth of it, or whose middle it holds."""
        covered = self._covered(scene)
        for number, thing in enumerate(scene.things):
            share = (covered == number).mean(axis=(1, 3))
            row, column = self.view.place(thing.x + thing.size / 2, thing.y + thing.size / 2)
            if self.inside(row, column):
                share[int(row), int(column)] = 1.0  # the hole of a ring is still the ring
            self.weight[(share > 0.03) & (share < 0.2)] = 0.0
            self.first[share >= 0.2] = self.ids[thing.color]
            self.second[share >= 0.2] = self.ids[thing.shape]
            self.weight[share >= 0.2] = 1.0

    def _covered(self, scene: Scene) -> npt.NDArray[np.int64]:
        """Probe which thing lies where, -1 for none, as (cells, PROBES, cells, PROBES)."""
        canvas = np.full((CANVAS, CANVAS), -1)
        for number, thing in enumerate(scene.things):
            box = canvas[thing.y : thing.y + thing.size, thing.x : thing.x + thing.size]
            box[shape_mask(thing.shape, thing.size)] = number
        view = self.view
        points = (np.arange(view.cells * PROBES) + 0.5) * (CELL / PROBES)
        rows, columns = (
            np.minimum((points + shift) / view.scale, CANVAS - 1).astype(int) for shift in (view.top, view.left)
        )
        return canvas[rows][:, columns].reshape(view.cells, PROBES, view.cells, PROBES)
