"""Samples of several images, a video and none, and which families take which of them."""

from __future__ import annotations

import dataclasses
from functools import partial

from small_models import picture, samples

from layerprof.data.spec import Dataset, Example


def example(name: str, *shapes: tuple[int, int], frames: int = 0, shape: tuple[int, int] = (84, 112)) -> Example:
    """Make a sample of images of these shapes, and of a video."""
    pictures = tuple(partial(picture, *one) for one in shapes)
    film = tuple(partial(picture, shape[0] + step, shape[1]) for step in range(frames))
    return Example(name, pictures, f"what is {name} about?", references=("yes",), frames=film)


TWO = example("two", (168, 112), (56, 140))
NONE = example("none")
FILM = example("film", frames=3)
ONE = example("one", (112, 252))
BOTH = example("both", (84, 84), frames=2)
ALL = (TWO, NONE, FILM, ONE, BOTH)


def of(*examples: Example) -> Dataset:
    """Make a dataset of these."""
    return dataclasses.replace(samples([]), examples=examples)


TAKEN: dict[str, tuple[Example, ...]] = {
    "llava_next": (TWO, NONE, ONE),
    "llava_onevision": (TWO, NONE, FILM, ONE),
    "internvl": (TWO, NONE, FILM, ONE),
    "gemma3": (TWO, NONE, ONE),
    "idefics3": (TWO, NONE, ONE),
    "qwen3_vl": ALL,
}
