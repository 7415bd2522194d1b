"""Rows of a hub dataset, streamed at one commit: only those in use are downloaded, images in their turn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from layerprof.data.pictures import read_image
from layerprof.data.rows import Opened, Row
from layerprof.data.spec import Spec
from layerprof.data.spool import Spool
from layerprof.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image

SHUFFLE_ROWS = 2000
"""How many streamed rows a seeded choice is drawn from, unless more are asked for."""


def open_hub(spec: Spec, revision: str | None, count: int | Literal["all"], seed: int) -> Opened:
    """Stream a hub dataset at one commit; without a revision, at the commit that its main branch has now.

    Texts are streamed at once, images by a stream of their own as the first walk goes on, which keeps them in a
    temporary file for those that follow. Raises RequestError when the hub cannot be reached or has no such dataset.
    """
    # Whatever goes wrong here comes from three libraries and the network, each with its own error classes.
    try:
        commit = _commit(spec.hub_id, revision)
        columns = _columns(spec, commit)
    except Exception as error:
        raise _unreachable(spec.hub_id, error) from error

    def rows(texts: Sequence[str], image: str) -> Iterator[Row]:
        def stream(names: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
            return enumerate(_connected(lambda: _stream(spec, commit, names), spec.hub_id))

        spool = Spool(lambda: ((number, row.get(image)) for number, row in stream([image])))
        for number, row in _drawn(stream([name for name in texts if name != image]), count, seed):
            spool.want(number)
            yield Row(number, row, partial(_downloaded, spool, number))

    return Opened(f"hub:{spec.hub_id}", commit, columns, rows)


def _downloaded(spool: Spool, number: int) -> Image.Image:
    return read_image(spool.cell(number), None)


def _drawn(
    rows: Iterator[tuple[int, dict[str, Any]]], count: int | Literal["all"], seed: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield streamed rows in their order, or with a seed other than 0 in a drawn one, thousands at a time."""
    if not seed:
        yield from rows
        return
    draw = random.Random(seed)
    while block := list(islice(rows, None if count == "all" else max(SHUFFLE_ROWS, count))):
        draw.shuffle(block)
        yield from block


def _unreachable(hub_id: str, error: Exception) -> RequestError:
    cause = " ".join(str(error).split())[:200]
    return RequestError(
        f"The samples of hub dataset {hub_id} could not be had ({type(error).__name__}: {cause}).",
        "Use --source bundled (drawn samples, no network) or --source FOLDER with a copy of them (docs/datasets.md).",
    )


def _connected(begin: Any, hub_id: str) -> Iterator[dict[str, Any]]:
    """Pass streamed rows on; a connection that breaks half-way is told like one that was never there."""
    stream: Iterator[dict[str, Any]] | None = None
    while True:
        try:
            stream = iter(begin()) if stream is None else stream
            row = next(stream)
        except StopIteration:
            return
        except Exception as error:
            raise _unreachable(hub_id, error) from error
        yield row


def _commit(hub_id: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(hub_id, revision=revision, timeout=20).sha)


def _columns(spec: Spec, commit: str) -> tuple[str, ...]:
    stream = _load(spec, commit)
    return tuple(stream.column_names or next(iter(stream), {}))


def _stream(spec: Spec, commit: str, names: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Stream these columns alone. Of parquet files, which most datasets are, nothing else is downloaded."""
    import datasets

    try:
        stream = _load(spec, commit, columns=list(names))
    except (TypeError, ValueError):  # files of another kind take no such option
        stream = _load(spec, commit)
    for name, feature in (stream.features or {}).items():
        if name in names and isinstance(feature, datasets.Image):
            stream = stream.cast_column(name, datasets.Image(decode=False))
    chosen: Iterable[dict[str, Any]] = stream.select_columns(list(names))
    return chosen


def _load(spec: Spec, commit: str, **more: Any) -> Any:
    import datasets

    return datasets.load_dataset(spec.hub_id, spec.config, split=spec.split, streaming=True, revision=commit, **more)
