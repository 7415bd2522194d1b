"""Rows of a hub dataset, streamed at one commit: only those in use are downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from layerprof.data.rows import Opened, Row
from layerprof.data.spec import Spec
from layerprof.errors import RequestError

SHUFFLE_ROWS = 2000
"""How many streamed rows a seeded choice is drawn from."""


def open_hub(spec: Spec, revision: str | None, seed: int) -> Opened:
    """Stream a hub dataset at one commit; without a revision, at the commit that its main branch has now.

    Raises RequestError when the hub cannot be reached or has no such dataset.
    """
    # Whatever goes wrong here comes from three libraries and the network, each with its own error classes.
    try:
        commit = _commit(spec.hub_id, revision)
        rows, columns = _stream(spec, commit, seed)
    except Exception as error:
        raise _unreachable(spec.hub_id, error) from error
    return Opened(f"hub:{spec.hub_id}", commit, columns, _connected(rows, spec.hub_id))


def _unreachable(hub_id: str, error: Exception) -> RequestError:
    cause = " ".join(str(error).split())[:200]
    return RequestError(
        f"The samples of hub dataset {hub_id} could not be had ({type(error).__name__}: {cause}).",
        "Use --source bundled (drawn samples, no network) or --source FOLDER with a copy of them (docs/datasets.md).",
    )


def _connected(rows: Iterable[Row], hub_id: str) -> Iterator[Row]:
    """Pass streamed rows on; a connection that breaks half-way is told like one that was never there."""
    stream = iter(rows)
    while True:
        try:
            row = next(stream)
        except StopIteration:
            return
        except Exception as error:
            raise _unreachable(hub_id, error) from error
        yield row


def _commit(hub_id: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(hub_id, revision=revision, timeout=20).sha)


def _stream(spec: Spec, commit: str, seed: int) -> tuple[Iterable[Row], tuple[str, ...]]:
    import datasets

    stream = datasets.load_dataset(spec.hub_id, spec.config, split=spec.split, streaming=True, revision=commit)
    columns = tuple(stream.column_names or ())
    if not columns:
        first: dict[str, Any] = next(iter(stream), {})
        columns = tuple(first)
    if isinstance((stream.features or {}).get("image"), datasets.Image):
        stream = stream.cast_column("image", datasets.Image(decode=False))
    if seed:
        stream = stream.shuffle(seed=seed, buffer_size=SHUFFLE_ROWS)
    return stream, columns
