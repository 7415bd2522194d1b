"""Where a dataset's rows come from: drawn ones, the hub, or a folder. Rows are dictionaries, images still undecoded.

Folders are `layerprof.data.tables`. This module imports none of the heavy libraries until a source needs them.
"""

from __future__ import annotations

import ast
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image

    from layerprof.data.datasets import Spec

Row = Mapping[str, Any]

SHUFFLE_ROWS = 2000
"""How many streamed rows a seeded choice from the hub is drawn from."""


class UnreadableImageError(Exception):
    """An image that is missing or cannot be decoded; the message says which and why."""


@dataclass(frozen=True)
class Opened:
    """An opened source. `columns` are the names found, `folder` is where relative image paths start."""

    label: str
    revision: str | None
    columns: tuple[str, ...]
    rows: Iterable[Row]
    folder: Path | None = None


def open_source(spec: Spec, source: str | Path, *, count: int, seed: int) -> Opened:
    """Return the rows of a source, unread.

    Raises RequestError when it is neither `bundled`, `hub`, `hub@REVISION` nor a folder or table that can be read, and
    when the hub cannot be reached.
    """
    text = str(source)
    if text == "bundled":
        return _bundled(spec, count, seed)
    if text == "hub" or text.startswith("hub@"):
        return _hub(spec, text.partition("@")[2] or None, seed)
    from layerprof.data import tables

    return tables.open_folder(spec, Path(text).expanduser(), seed)


def match_columns(spec: Spec, opened: Opened) -> dict[str, str]:
    """Return field -> column. Raises RequestError naming the missing columns and those found."""
    found = {name.lower(): name for name in reversed(opened.columns)}
    matched, missing = {}, []
    for field, names in {**spec.columns, **spec.optional}.items():
        column = next((found[name] for name in names if name in found), None)
        if column is not None:
            matched[field] = column
        elif field in spec.columns:
            missing.append(" or ".join(f"'{name}'" for name in names))
    if missing:
        found_columns = ", ".join(opened.columns) or "none"
        raise RequestError(
            f"{opened.label} has no column {', and none '.join(missing)}; found: {found_columns}.",
            f"Name the columns as the {spec.name} dataset does: {', '.join(spec.columns)} (docs/datasets.md).",
        )
    return matched


# --- drawn ------------------------------------------------------------------------------------------------------


def _bundled(spec: Spec, count: int, seed: int) -> Opened:
    from layerprof import demo
    from layerprof.demo import tasks

    total = demo.EVALUATION_ROWS
    if seed:
        chosen = random.Random(seed).sample(range(total), min(count, total))
        rows: Iterable[Row] = (tasks.sample(spec.name, index).row() for index in chosen)
    else:
        rows = demo.rows(spec.name, min(count, total))
    columns = tuple(tasks.sample(spec.name, 0).fields)
    return Opened("bundled", f"seed-{demo.SEED}", ("image", *columns), rows)


# --- hub --------------------------------------------------------------------------------------------------------


def _unreachable(hub_id: str, error: Exception) -> RequestError:
    cause = " ".join(str(error).split())[:200]
    return RequestError(
        f"The samples of hub dataset {hub_id} could not be had ({type(error).__name__}: {cause}).",
        "Use --source bundled (drawn samples, no network) or --source FOLDER with a copy of them (docs/datasets.md).",
    )


def _hub(spec: Spec, revision: str | None, seed: int) -> Opened:
    """Stream a hub dataset at one commit; without a revision, at the commit that its main branch has now."""
    # Whatever goes wrong here comes from three libraries and the network, each with its own error classes.
    try:
        commit = _commit(spec.hub_id, revision)
        rows, columns = _stream(spec, commit, seed)
    except Exception as error:
        raise _unreachable(spec.hub_id, error) from error
    return Opened(f"hub:{spec.hub_id}", commit, columns, _connected(rows, spec.hub_id))


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


# --- values -----------------------------------------------------------------------------------------------------


def _empty(value: Any) -> bool:
    """Tell an empty cell: None, NaN (an empty cell of pandas) or the empty text."""
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any) -> str:
    """Return a cell as text; an empty one is the empty text, half of a broken character a question mark."""
    if _empty(value):
        return ""
    return str(value).encode("utf-8", "replace").decode()


def as_list(value: Any) -> list[Any]:
    """Return a cell as a list: a list as it is, one written as text (JSON or Python) parsed, anything else alone."""
    if _empty(value):
        return []
    if isinstance(value, str):
        return _parsed_list(value)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def _parsed_list(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        for parse in (json.loads, ast.literal_eval):
            try:
                parsed = parse(text)
            except (ValueError, SyntaxError):
                continue
            if isinstance(parsed, list):
                return parsed
    return [text]


def read_image(value: Any, folder: Path | None) -> Image.Image | None:
    """Return a cell's image, decoded once as a proof and held in its compressed form; None for an empty cell.

    The cell may be an image, the file's bytes, `{"bytes", "path"}` as `datasets` stores them, a path (relative ones
    start at `folder`), or a list of one of these. Raises UnreadableImageError.
    """
    from PIL import Image

    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if _empty(value):
        return None
    if isinstance(value, Image.Image):
        return value
    try:
        return _decoded(_bytes_of(value, folder))
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{value}: {error}" if isinstance(value, (str, Path)) else str(error)) from None


def _bytes_of(value: Any, folder: Path | None) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, (str, Path)):
        raise UnreadableImageError(f"a {type(value).__name__} is not an image")
    if "://" in str(value):
        raise UnreadableImageError("addresses are not fetched; download it")
    try:
        path = Path(value).expanduser()
        return (path if path.is_absolute() or folder is None else folder / path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from None
    except (ValueError, RuntimeError) as error:  # a NUL in the name; ~ of somebody who has no home here
        raise UnreadableImageError(str(error)) from None


def _decoded(data: bytes) -> Image.Image:
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as trial:
            trial.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        kind = "empty file" if not data else str(error).replace("<_io.BytesIO object at", "bytes").split(" 0x")[0]
        raise UnreadableImageError(f"{kind} ({len(data)} bytes)") from None
    return Image.open(io.BytesIO(data))
