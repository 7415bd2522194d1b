"""The bundled rows: drawn, the same on every machine, no network needed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from layerprof import demo
from layerprof.data.rows import Opened, Row
from layerprof.data.spec import Spec
from layerprof.demo import drawing, mixed, tasks
from layerprof.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image


KINDS = ("", "mixed")
"""What may stand behind `bundled@`; the first is what stands there for nothing."""


def open_bundled(spec: Spec, kind: str, count: int | Literal["all"], seed: int) -> Opened:
    """Return the first `count` rows, or with a seed other than 0 a drawn choice of them.

    All are 300; asking for more draws more, the first 300 unchanged. `kind` is empty for one square image a sample, or
    `mixed` for sizes and numbers of pictures as they come. Raises RequestError for any other.
    """
    if kind not in KINDS:
        raise RequestError(
            f"There are no bundled samples '{kind}'.", "Give --source bundled or --source bundled@mixed."
        )
    asked = demo.EVALUATION_ROWS if count == "all" else count
    numbers: Sequence[int] = range(asked)
    if seed:
        numbers = random.Random(seed).sample(range(max(demo.EVALUATION_ROWS, asked)), asked)

    def rows(_texts: Sequence[str], _pictured: Mapping[str, str]) -> Iterator[Row]:
        for number in numbers:
            yield (_mixed if kind else _plain)(spec.name, number)

    columns = tuple(tasks.sample(spec.name, 0).fields)
    label = f"bundled@{kind}" if kind else "bundled"
    return Opened(label, f"seed-{demo.SEED}", ("image", *(["video"] if kind else []), *columns), rows)


def _plain(name: str, number: int) -> Row:
    return Row(number, tasks.sample(name, number).fields, (partial(_drawn, name, number),))


def _drawn(name: str, number: int) -> Image.Image:
    return drawing.image(tasks.sample(name, number).scene)


def _mixed(name: str, number: int) -> Row:
    made = mixed.sample(name, number)
    images = tuple(partial(_drawn_image, name, number, which) for which in range(len(made.images)))
    frames = range(len(made.video.places)) if made.video else ()
    return Row(number, made.fields, images, tuple(partial(_drawn_frame, name, number, frame) for frame in frames))


def _drawn_image(name: str, number: int, which: int) -> Image.Image:
    return mixed.image(mixed.sample(name, number).images[which])


def _drawn_frame(name: str, number: int, frame: int) -> Image.Image:
    video = mixed.sample(name, number).video
    assert video is not None
    return mixed.image(video, frame)
