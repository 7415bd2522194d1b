"""Drawing for the bundled tasks: flat shapes and block letters on one 448 x 448 canvas.

Everything is rasterised here from integer and float comparisons in numpy, with a bitmap font of our own; Pillow only
wraps the finished array. So the pixels of a scene depend neither on the Pillow version nor on an installed font.
Lengths are pixels of the 448 canvas, x to the right, y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

CANVAS = 448
"""Side of every drawn image, in pixels."""

Color = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

OBJECT_COLORS: dict[str, Color] = {
    "red": (220, 30, 30),
    "green": (30, 150, 60),
    "blue": (40, 70, 220),
    "yellow": (250, 215, 30),
    "purple": (130, 40, 170),
    "black": (20, 20, 20),
    "brown": (130, 75, 30),
    "pink": (255, 120, 190),
}
BACKGROUND_COLORS: dict[str, Color] = {
    "white": (250, 250, 250),
    "gray": (196, 196, 196),
    "cyan": (180, 240, 246),
    "beige": (240, 226, 190),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")

GLYPH_WIDTH, GLYPH_HEIGHT, ADVANCE = 5, 7, 7
"""Of one letter, in font pixels; the advance includes two empty columns."""

# One letter is seven rows of five bits, the top row first and the leftmost column the highest bit.
_FONT = {
    "A": "0E11111F111111", "B": "1E11111E11111E", "C": "0E11101010110E", "D": "1E11111111111E",
    "E": "1F10101E10101F", "F": "1F10101E101010", "G": "0E11101711110F", "H": "1111111F111111",
    "I": "0E04040404040E", "J": "0702020202120C", "K": "11121418141211", "L": "1010101010101F",
    "M": "111B1515111111", "N": "11111915131111", "O": "0E11111111110E", "P": "1E11111E101010",
    "Q": "0E11111115120D", "R": "1E11111E141211", "S": "0F10100E01011E", "T": "1F040404040404",
    "U": "1111111111110E", "V": "11111111110A04", "W": "1111111515150A", "X": "11110A040A1111",
    "Y": "11110A04040404", "Z": "1F01020408101F",
}  # fmt: skip


@dataclass(frozen=True)
class Word:
    """One line of uppercase letters; (x, y) is its top left corner, `pixel` the side of one font pixel."""

    text: str
    x: int
    y: int
    pixel: int
    color: Color

    @property
    def width(self) -> int:
        """Pixels from the first letter's left edge to the last one's right edge."""
        return (len(self.text) * ADVANCE - ADVANCE + GLYPH_WIDTH) * self.pixel

    @property
    def height(self) -> int:
        """Pixels from top to bottom of the letters."""
        return GLYPH_HEIGHT * self.pixel

    def center(self, index: int) -> tuple[float, float]:
        """Middle of the glyph of one letter."""
        left = self.x + index * ADVANCE * self.pixel
        return left + GLYPH_WIDTH * self.pixel / 2, self.y + self.height / 2


@dataclass(frozen=True)
class Thing:
    """One flat coloured shape in a square box of side `size` whose top left corner is (x, y)."""

    color: str
    shape: str
    x: int
    y: int
    size: int
    rgb: Color


@dataclass(frozen=True)
class Scene:
    """What one image shows. `sign` is a filled box (x, y, width, height, color) behind the words, or None."""

    background: str
    rgb: Color
    things: tuple[Thing, ...] = ()
    words: tuple[Word, ...] = ()
    sign: tuple[int, int, int, int, Color] | None = None


def glyph(letter: str) -> Mask:
    """Bitmap of one uppercase letter, shape (7, 5)."""
    code = _FONT[letter]
    rows = [int(code[at : at + 2], 16) for at in range(0, len(code), 2)]
    return np.array([[bool(row >> (GLYPH_WIDTH - 1 - column) & 1) for column in range(GLYPH_WIDTH)] for row in rows])


def shape_mask(shape: str, size: int) -> Mask:
    """Which pixels of a size x size box the shape covers."""
    axis = (np.arange(size) + 0.5) * (2 / size) - 1
    u, v = axis[None, :], axis[:, None]
    if shape == "circle":
        return np.asarray(u * u + v * v <= 1)
    if shape == "square":
        return np.asarray(np.maximum(abs(u), abs(v)) <= 0.88)
    if shape == "triangle":
        return np.asarray((abs(u) <= (v + 1) / 2) & (v <= 0.9))
    if shape == "cross":
        return np.asarray(np.minimum(abs(u), abs(v)) <= 0.3)
    if shape == "ring":
        squared = u * u + v * v
        return np.asarray((squared <= 1) & (squared >= 0.3))
    if shape == "star":
        return _star(u, v)
    raise ValueError(f"unknown shape {shape!r}: use one of {', '.join(SHAPES)}")


def _star(u: npt.NDArray[np.floating], v: npt.NDArray[np.floating]) -> Mask:
    """Five points, one up: the straight edge between an outer (1.0) and an inner (0.42) corner, folded by symmetry."""
    sector = math.pi / 5
    angle = np.arctan2(u, -v)
    folded = np.abs((angle + sector) % (2 * sector) - sector)
    radius = np.hypot(u, v)
    x, y = radius * np.cos(folded), radius * np.sin(folded)
    inner_x, inner_y = 0.42 * math.cos(sector), 0.42 * math.sin(sector)
    return np.asarray((x - 1) * inner_y <= y * (inner_x - 1))


def render(scene: Scene) -> Pixels:
    """Draw a scene: its pixels, shape (448, 448, 3)."""
    canvas = np.empty((CANVAS, CANVAS, 3), np.uint8)
    canvas[:] = scene.rgb
    if scene.sign is not None:
        x, y, width, height, color = scene.sign
        canvas[y : y + height, x : x + width] = color
    for thing in scene.things:
        box = canvas[thing.y : thing.y + thing.size, thing.x : thing.x + thing.size]
        box[shape_mask(thing.shape, thing.size)] = thing.rgb
    for word in scene.words:
        _write(canvas, word)
    return canvas


def _write(canvas: Pixels, word: Word) -> None:
    for index, letter in enumerate(word.text):
        ink = np.repeat(np.repeat(glyph(letter), word.pixel, axis=0), word.pixel, axis=1)
        left = word.x + index * ADVANCE * word.pixel
        canvas[word.y : word.y + ink.shape[0], left : left + ink.shape[1]][ink] = word.color


def scaled(pixels: Pixels, side: int) -> Pixels:
    """Return a square drawing with another side: each pixel is the nearest one of the drawing."""
    nearest = np.arange(side) * len(pixels) // side
    return np.ascontiguousarray(pixels[nearest][:, nearest])


def plain(width: int, height: int, color: Color) -> Pixels:
    """Fill a canvas of its own size."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = color
    return canvas


def image(scene: Scene) -> Image.Image:
    """Draw a scene as the RGB image a dataset row holds."""
    return Image.fromarray(render(scene))
