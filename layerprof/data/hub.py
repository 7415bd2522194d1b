"""Rows of a hub dataset, streamed at one commit: only those in use are downloaded, images in their turn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal

from layerprof.data import arrow, cells
from layerprof.data.rows import Opened, Row
from layerprof.data.spec import Spec
from layerprof.data.spool import Spool
from layerprof.errors import RequestError

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
        columns, lists = _columns(spec, commit)
    except Exception as error:
        raise _unreachable(spec.hub_id, error) from error

    def rows(texts: Sequence[str], pictured: Mapping[str, str]) -> Iterator[Row]:
        def stream(names: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
            return enumerate(_connected(lambda: _stream(spec, commit, names), spec.hub_id))

        def spool(name: str) -> Spool:
            return Spool(lambda: ((number, row.get(name)) for number, row in stream([name])))

        spools = {field: spool(name) for field, name in pictured.items()}
        for number, row in _drawn(stream([name for name in texts if name not in pictured.values()]), count, seed):
            parts = {field: _part(one, number, pictured[field] in lists) for field, one in spools.items()}
            yield cells.row(number, row, {}, parts, None)

    return Opened(f"hub:{spec.hub_id}", commit, columns, rows)


def _part(spool: Spool, number: int, lists: bool) -> cells.Inside | None:
    """Return how a row's cell is read; None for an empty list. How many a list has is not known until it is there."""
    spool.want(number)
    found = spool.cell(number) if lists else ()
    return None if found is None else (partial(spool.cell, number), len(found) if lists else None)


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


def _columns(spec: Spec, commit: str) -> tuple[tuple[str, ...], set[str]]:
    """Return the names of the columns, and which of them list images."""
    import datasets

    stream = _load(spec, commit)
    kinds = stream.features or {}
    lists = {name for name, kind in kinds.items() if isinstance(kind, datasets.List) and arrow.undecoded(kind)}
    return tuple(stream.column_names or next(iter(stream), {})), lists


def _stream(spec: Spec, commit: str, names: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Stream these columns alone. Of parquet files, which most datasets are, nothing else is downloaded."""
    try:
        stream = _load(spec, commit, columns=list(names))
    except (TypeError, ValueError):  # files of another kind take no such option
        stream = _load(spec, commit)
    for name, feature in (stream.features or {}).items():
        if name in names and (bare := arrow.undecoded(feature)) is not None:
            stream = stream.cast_column(name, bare)
    chosen: Iterable[dict[str, Any]] = stream.select_columns(list(names))
    return chosen


def _load(spec: Spec, commit: str, **more: Any) -> Any:
    import datasets

    return datasets.load_dataset(spec.hub_id, spec.config, split=spec.split, streaming=True, revision=commit, **more)
