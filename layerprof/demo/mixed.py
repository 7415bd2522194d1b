"""The bundled tasks as pictures come: sizes and shapes differ, and samples hold one image, two, a video or none.

The rows ask what those of `tasks` ask, with the answers that they have, about scenes drawn on canvases of other sizes.
A second image shows something else than what is asked for. The bundled model is not trained for these: they are for
the work that such samples make, not for the rates of its answers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from layerprof.demo import drawing, tasks
from layerprof.demo.drawing import Scene

SHORTEST, LONGEST = 168, 560
"""Pixels along a side of an image."""
LONGEST_OF_FRAMES = 280
FRAMES = (3, 6)
"""Frames of a video, fewest and most."""
Kind = Literal["one", "two", "video", "none"]
KINDS: tuple[Kind, ...] = ("one", "two", "video", "none", "one", "one", "two", "one")
"""What samples hold, in turn, so that a few of them hold everything. A caption needs something to look at: coco has
one image where others have none."""


@dataclass(frozen=True)
class Canvas:
    """A scene on a canvas of its own size: scaled to the shorter side, at each of `places` along the longer one.

    Several places are the frames of a video in which the scene moves.
    """

    scene: Scene
    width: int
    height: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class MixedSample:
    """One row without its pictures, and what they show."""

    fields: dict[str, Any]
    images: tuple[Canvas, ...]
    video: Canvas | None = None


def sample(dataset: str, index: int, split: str = "evaluation", seed: int = tasks.SEED) -> MixedSample:
    """One sample of a task, the same on every machine."""
    asked = tasks.sample(dataset, index, split, seed)
    rng = random.Random(f"mixed/{dataset}/{split}/{seed}/{index}")
    kind = KINDS[index % len(KINDS)]
    if kind == "none" and dataset != "coco":
        return MixedSample(_in_words(dataset, asked), ())
    if kind == "video":
        return MixedSample(asked.fields, (), _canvas(rng, asked.scene, LONGEST_OF_FRAMES, rng.randint(*FRAMES)))
    images: tuple[Canvas, ...] = (_canvas(rng, asked.scene, LONGEST),)
    if kind == "two":
        images = (*images, _canvas(rng, _beside(dataset, index, split, seed), LONGEST))
    return MixedSample(asked.fields, images)


def image(canvas: Canvas, frame: int = 0) -> Image.Image:
    """Draw a canvas, or one frame of it."""
    side = min(canvas.width, canvas.height)
    scaled = drawing.scaled(drawing.render(canvas.scene), side)
    pixels = drawing.plain(canvas.width, canvas.height, canvas.scene.rgb)
    along = canvas.places[frame]
    x, y = (along, 0) if canvas.width > canvas.height else (0, along)
    pixels[y : y + side, x : x + side] = scaled
    return Image.fromarray(pixels)


def _canvas(rng: random.Random, scene: Scene, longest: int, frames: int = 1) -> Canvas:
    """Draw a size, and where the scene stands in it."""
    width, height = rng.randint(SHORTEST, longest), rng.randint(SHORTEST, longest)
    room = abs(width - height)
    if frames == 1:
        return Canvas(scene, width, height, (rng.randint(0, room),))
    return Canvas(scene, width, height, tuple(room * frame // (frames - 1) for frame in range(frames)))


def _beside(dataset: str, index: int, split: str, seed: int) -> Scene:
    """Return what a second image shows: shapes beside a word that is to be read, a word beside shapes."""
    return tasks.sample("coco" if dataset == "textvqa" else "textvqa", index, split, seed).scene


def _in_words(dataset: str, asked: tasks.DrawnSample) -> dict[str, Any]:
    """Return the row of a sample without an image: its question says what the image would show."""
    fields = dict(asked.fields)
    if dataset == "textvqa":
        word = asked.scene.words[0].text
        return fields | {"question": f'a sign says "{word}". {fields["question"]}'}
    return fields | {"hint": f"There is {tasks.phrase(asked.scene.things)} on a {asked.scene.background} background."}
