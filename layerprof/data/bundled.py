"""The bundled rows: drawn, the same on every machine, no network needed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from layerprof import demo
from layerprof.data.rows import Opened, Row
from layerprof.data.spec import Spec
from layerprof.demo import drawing, tasks

if TYPE_CHECKING:
    from PIL import Image


def open_bundled(spec: Spec, count: int | Literal["all"], seed: int) -> Opened:
    """Return the first `count` rows, or with a seed other than 0 a drawn choice of them.

    All are 300; asking for more draws more, the first 300 unchanged.
    """
    asked = demo.EVALUATION_ROWS if count == "all" else count
    numbers: Sequence[int] = range(asked)
    if seed:
        numbers = random.Random(seed).sample(range(max(demo.EVALUATION_ROWS, asked)), asked)

    def rows(_texts: Sequence[str], _image: str) -> Iterator[Row]:
        for number in numbers:
            yield Row(number, tasks.sample(spec.name, number).fields, partial(_drawn, spec.name, number))

    columns = tuple(tasks.sample(spec.name, 0).fields)
    return Opened("bundled", f"seed-{demo.SEED}", ("image", *columns), rows)


def _drawn(name: str, number: int) -> Image.Image:
    return drawing.image(tasks.sample(name, number).scene)
