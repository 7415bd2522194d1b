"""The three bundled tasks: rows with the columns of the hub datasets, over drawn scenes.

A row is a pure function of (dataset, split, seed, index), so any row can be had alone and a run can be repeated. Each
task is only as hard as a model of three million parameters can learn, but has the form of the real one: read a word,
answer a multiple-choice question by its letter, describe the picture.
"""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from layerprof.demo import words
from layerprof.demo.drawing import (
    BACKGROUND_COLORS,
    CANVAS,
    GLYPH_HEIGHT,
    OBJECT_COLORS,
    SHAPES,
    Color,
    Scene,
    Thing,
    Word,
    image,
)
from layerprof.errors import RequestError

SPLITS = ("training", "evaluation")
EVALUATION_ROWS = 300
"""Rows of the evaluation split of each task."""
SEED = 2026

GRID = 56
"""Words start on this grid, one image token (28 px) wide at 224 px, or two font pixels to the right of it."""
LARGE_PIXEL = 8
"""Font pixel of ordinary words: a letter is as high as the grid and letters are one grid step apart, so that at 224 px
each fills one image token."""
SMALL_PIXEL = 4
SMALL_SHARE = 0.06
"""Small words put two letters into one image token at 224 px; at 448 px they look as ordinary ones do at 224."""

TEXT_QUESTIONS = (
    "what is the word in the image?",
    "what does the sign say?",
    "which word is written in the picture?",
    "what word is shown?",
    "what is written here?",
)
HINTS = ("", "Look at the picture.", "The picture shows some shapes.", "Each object has one color.")
INKS: tuple[Color, ...] = ((20, 20, 20), (150, 20, 20), (20, 30, 140), (10, 90, 40), (90, 20, 110))


@dataclass(frozen=True)
class DrawnSample:
    """One row without its image, and the scene it is about."""

    scene: Scene
    fields: dict[str, Any]

    def row(self) -> dict[str, Any]:
        """Draw the image and give the row as a hub dataset does."""
        return {"image": image(self.scene), **self.fields}


def sample(dataset: str, index: int, split: str = "evaluation", seed: int = SEED) -> DrawnSample:
    """One sample of a task, the same on every machine."""
    draw = {"textvqa": _textvqa, "scienceqa": _scienceqa, "coco": _coco}
    if dataset not in draw:
        raise RequestError(
            f"There are no bundled samples of {dataset}.",
            f"Give --source hub or a folder, or take one of the datasets {', '.join(draw)}.",
        )
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    # Seeding by text hashes it, so neighbouring indices and the two splits give unrelated streams.
    rng = random.Random(f"{dataset}/{split}/{seed}/{index}")
    return draw[dataset](rng, index, split)


def rows(
    dataset: str, count: int | None = None, split: str = "evaluation", seed: int = SEED
) -> Iterator[dict[str, Any]]:
    """Yield the first `count` rows (all 300 by default), drawn as they are asked for."""
    for index in range(EVALUATION_ROWS if count is None else count):
        yield sample(dataset, index, split, seed).row()


def jitter(rng: random.Random, color: Color) -> Color:
    """Return the colour, each channel off by up to 6 of 255."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-6, 6))) for channel in color)
    return red, green, blue


def background(rng: random.Random) -> tuple[str, Color]:
    """Pick a background: its name and its colour in this one picture."""
    name = rng.choice(list(BACKGROUND_COLORS))
    return name, jitter(rng, BACKGROUND_COLORS[name])


def pick_word(rng: random.Random, split: str) -> str:
    """Pick a held-out word; for training, mostly random letters, so that reading is learnt and not the word list."""
    if split == "evaluation":
        return rng.choice(words.EVALUATION)
    if rng.random() < 0.3:
        return rng.choice(words.TRAINING)
    while True:
        text = "".join(rng.choices(string.ascii_uppercase, k=rng.randint(3, 6)))
        if text not in words.EVALUATION:
            return text


def text_scene(rng: random.Random, text: str, pixel: int) -> Scene:
    """Put a word anywhere on a plain background, half of the time on a sign of another light colour."""
    name, rgb = background(rng)
    offset, height = rng.choice((0, 2 * pixel)), GLYPH_HEIGHT * pixel
    width = Word(text, 0, 0, pixel, rgb).width
    x = rng.randrange(offset, CANVAS - width + 1, GRID)
    y = rng.randrange(0, CANVAS, height)
    word = Word(text, x, y, pixel, jitter(rng, rng.choice(INKS)))
    sign = None
    if rng.random() < 0.5:
        margin = rng.randint(12, 32)
        left, top = max(0, x - margin), max(0, y - margin)
        right, bottom = min(CANVAS, x + width + margin), min(CANVAS, y + height + margin)
        sign = (left, top, right - left, bottom - top, background(rng)[1])
    return Scene(name, rgb, words=(word,), sign=sign)


def _textvqa(rng: random.Random, index: int, split: str) -> DrawnSample:
    text = pick_word(rng, split)
    pixel = SMALL_PIXEL if rng.random() < SMALL_SHARE else LARGE_PIXEL
    fields = {
        "image_id": f"{split}-{index:06d}",
        "question_id": index,
        "question": rng.choice(TEXT_QUESTIONS),
        "answers": [text] * 6 + [text.lower()] * 2 + [text.capitalize()] * 2,
    }
    return DrawnSample(text_scene(rng, text, pixel), fields)


def things_scene(rng: random.Random, count: int) -> Scene:
    """`count` shapes that do not touch, each of its own colour and its own shape."""
    name, rgb = background(rng)
    colors, shapes = rng.sample(list(OBJECT_COLORS), count), rng.sample(SHAPES, count)
    while True:
        boxes: list[tuple[int, int, int]] = []
        for _ in range(60):
            size = rng.randint(90, 150)
            x, y = rng.randint(0, CANVAS - size), rng.randint(0, CANVAS - size)
            if all(max(abs(2 * (x - a) + size - s), abs(2 * (y - b) + size - s)) > size + s + 16 for a, b, s in boxes):
                boxes.append((x, y, size))
            if len(boxes) == count:
                things = tuple(
                    Thing(color, shape, *box, jitter(rng, OBJECT_COLORS[color]))
                    for color, shape, box in zip(colors, shapes, boxes, strict=True)
                )
                return Scene(name, rgb, things)


def _scienceqa(rng: random.Random, index: int, split: str) -> DrawnSample:
    scene = things_scene(rng, rng.choice((1, 2, 2, 3)))
    asked = rng.choice(scene.things)
    kind = rng.choice(("color", "shape", "present"))
    if kind == "color":
        question, answer, pool = f"What color is the {asked.shape}?", asked.color, list(OBJECT_COLORS)
        wrong = [color for color in pool if color != answer]
    elif kind == "shape":
        question, answer = f"What shape is the {asked.color} object?", asked.shape
        wrong = [shape for shape in SHAPES if shape != answer]
    else:
        question, answer = "Which color is in the picture?", asked.color
        wrong = [color for color in OBJECT_COLORS if all(color != thing.color for thing in scene.things)]
    choices = [answer, *rng.sample(wrong, 3)]
    rng.shuffle(choices)
    fields = {
        "question": question,
        "choices": choices,
        "answer": choices.index(answer),
        "hint": rng.choice(HINTS),
        "task": "closed choice",
        "grade": "grade1",
        "subject": "natural science",
        "topic": "shapes and colors",
        "image_id": f"{split}-{index:06d}",
    }
    return DrawnSample(scene, fields)


def _coco(rng: random.Random, index: int, split: str) -> DrawnSample:
    scene = things_scene(rng, rng.choice((1, 2, 2, 3)))
    fields = {
        "question_id": f"{split}-{index:06d}.jpg",
        "question": "Please carefully observe the image and come up with a caption for the image",
        "answer": captions(scene),
    }
    return DrawnSample(scene, fields)


def phrase(things: Sequence[Thing], joint: str = " and ") -> str:
    """Name the things."""
    return joint.join(f"a {thing.color} {thing.shape}" for thing in things)


def captions(scene: Scene) -> list[str]:
    """Give at least five references: the plain caption in every order of the objects, then other wordings.

    The first one, which the bundled model was trained on, names the objects in the order of their colours' names.
    """
    things = sorted(scene.things, key=lambda thing: thing.color)
    ground = f"{scene.background} background"
    plain = [f"{phrase(order)} on a {ground}" for order in itertools.permutations(things)]
    listed = phrase(things, ", ")
    return [
        *plain,
        f"a {ground} with {phrase(things)}",
        f"there is {phrase(things)} on a {ground}",
        f"a picture of {listed} on {scene.background}",
        f"{listed} in front of a {ground}",
    ]
