"""The bundled rows: drawn, the same on every machine, no network needed."""

from __future__ import annotations

import random
from collections.abc import Iterable

from layerprof import demo
from layerprof.data.rows import Opened, Row
from layerprof.data.spec import Spec
from layerprof.demo import tasks


def open_bundled(spec: Spec, count: int, seed: int) -> Opened:
    """Return the first `count` rows, or with a seed other than 0 a drawn choice of them."""
    total = demo.EVALUATION_ROWS
    if seed:
        chosen = random.Random(seed).sample(range(total), min(count, total))
        rows: Iterable[Row] = (tasks.sample(spec.name, index).row() for index in chosen)
    else:
        rows = demo.rows(spec.name, min(count, total))
    columns = tuple(tasks.sample(spec.name, 0).fields)
    return Opened("bundled", f"seed-{demo.SEED}", ("image", *columns), rows)
