"""Run to folder and back: `run.json`, `layers.csv`, `samples.jsonl`; whole files or none."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import NoneType
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from layerprof.errors import RequestError, RunFailedError
from layerprof.records import FORMAT, NotCounted, Run, Sample
from layerprof.runs import layer_table

RUN_FILE = "run.json"
LAYERS_FILE = "layers.csv"
SAMPLES_FILE = "samples.jsonl"
DEFAULT_PARENT = Path("traces")
DEEPEST = 100
"""Levels of a stored reading; parsers of JSON stop at a few hundred."""

_made: set[Path] = set()
"""Folders that this process made: only these are removed again when nothing came of the run."""

_HOW_TO_GET_A_RUN = "Give the folder that `layerprof profile` printed at its end, or its run.json."


def save(run: Run, folder: str | Path, samples: Iterable[Sample] | None = None) -> Run:
    """Write the run's files into the folder (made when missing) and return the run with their names in `files`.

    Each file is written beside its place and renamed, so a reader never sees half of one. `run.json` comes last: where
    it is, the rest is. Raises RunFailedError when the disk refuses.
    """
    place = Path(folder)
    files = dict(run.files) | {"run": RUN_FILE, "layers": LAYERS_FILE}
    if samples is not None:
        files["samples"] = SAMPLES_FILE
    stored = run.model_copy(update={"files": files})
    try:
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / LAYERS_FILE, layer_table.csv_text(stored).encode())
        if samples is not None:
            write_atomic(place / SAMPLES_FILE, b"".join(_line(sample) for sample in samples))
        write_atomic(place / RUN_FILE, dump(stored))
    except OSError as error:
        raise RunFailedError(
            f"The run could not be written to {place}: {error.strerror or error}.",
            "Free space or give another folder with --output; what was measured is lost unless it is saved again.",
        ) from error
    return stored


def dump(run: Run) -> bytes:
    """Return `run.json` as UTF-8 bytes; NaN and infinity, which JSON lacks, become null and a warning names them."""
    lost: list[str] = []
    # The passes are walked by _plain alone: they hold what users' instruments read, and that may hold itself.
    fixed = run.model_copy(update={"passes": {}}).model_dump(mode="python")
    data = _plain(fixed | {"passes": run.passes}, "", lost)
    if lost:
        data["warnings"] = [*data["warnings"], f"Not a finite number, stored as null: {', '.join(lost)}."]
    try:
        return orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n"
    except orjson.JSONEncodeError:  # integers beyond 64 bits: hours of FLOPs on a large machine
        return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def load(path: str | Path) -> Run:
    """Return the run in a folder or in its `run.json`.

    Raises RequestError when there is none, when it was written by a newer layerprof, or when it is broken.
    """
    try:
        file = _run_file(Path(path).expanduser())
        data = file.read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.", _HOW_TO_GET_A_RUN) from error
    _check_format(file, data)
    try:
        return _placed(_with_bounds(Run.model_validate_json(data)), file.parent)
    except ValidationError as error:
        raise RequestError(
            f"{file} does not hold a complete run: {_first_errors(error)}.",
            "Take the file as layerprof wrote it, or measure again with `layerprof profile`.",
        ) from error


def _placed(run: Run, folder: Path) -> Run:
    """Return the run with the folder that it lies in now: runs are moved, copied, and read from elsewhere."""
    if "output" not in run.settings:
        return run
    return run.model_copy(update={"settings": run.settings | {"output": str(folder)}})


def _with_bounds(run: Run) -> Run:
    """Return a run of format 1 or 2 with its FLOPs marked as lower bounds where operators were not counted.

    It named the operators and not their layers: any row without FLOPs may have had some.
    """
    column, totals = run.ledger.flops, run.totals
    if run.format > 2 or not run.uncounted_ops or column.total is None:
        return run
    missing = {name: NotCounted(calls=calls) for name, calls in run.uncounted_ops.items()}
    marked = {"not_counted": missing, "at_least": ("total",), "total": column.total or None}
    marked |= {} if column.total else {"residual": None, "layers": None}
    books = run.ledger.model_copy(update={"flops": column.model_copy(update=marked)})
    work = {"flops_at_least": True, "flops": totals.flops or None, "flops_per_sample": totals.flops_per_sample or None}
    rows = tuple(row if row.flops else row.model_copy(update={"flops": None}) for row in run.layers)
    return run.model_copy(update={"ledger": books, "totals": totals.model_copy(update=work), "layers": rows})


def load_samples(folder: str | Path) -> tuple[Sample, ...]:
    """Return the samples beside a run, empty when it was saved without; RequestError names a line that is broken."""
    place = Path(folder).expanduser()
    file = (place if place.is_dir() else place.parent) / SAMPLES_FILE
    if not file.is_file():
        return ()
    samples = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            samples.append(Sample.model_validate_json(line))
        except ValidationError as error:
            raise RequestError(
                f"{file}, line {number}, is not a sample: {_first_errors(error)}.",
                "Take the file as layerprof wrote it, or measure again with `layerprof profile`.",
            ) from error
    return tuple(samples)


def prepare_folder(path: str | Path | None, label: str = "run", now: datetime | None = None) -> Path:
    """Return an empty folder that can be written to, made when missing; needs no model.

    Without a path: `traces/<UTC time>-<label>` below the current folder, numbered when taken. Raises RequestError when
    the path is a file, holds something, or cannot be written to.
    """
    if path is None:
        return _default_folder(now or datetime.now(UTC), label)
    place = Path(path).expanduser()
    _make_writable(place)
    if any(place.iterdir()):
        raise RequestError(
            f"The output folder {place} is not empty.",
            "Give --output a new or empty folder; a run never writes over another.",
        )
    return place


def discard_folder(folder: str | Path) -> None:
    """Remove a prepared folder in which nothing was saved, with the folders above that were made for it.

    One that holds something, or is gone, stays as it is.
    """
    place = Path(folder).expanduser().absolute()
    with suppress(OSError):
        place.rmdir()
        while (place := place.parent) in _made:
            place.rmdir()
            _made.discard(place)


def holds(file: Path) -> bool:
    """Tell whether a file is there that a run or a sweep is made of; a link is what it leads to."""
    file = file.resolve()
    if not file.is_file():
        return False
    here = file.parent
    sweep = (here / "cells").is_dir() and (here / "sweep.json").is_file()
    own = (RUN_FILE, LAYERS_FILE, SAMPLES_FILE, "batches.csv", "spans.csv", "sweep.json", "cell.json")
    if file.name in own and (_is_run(here) or sweep):
        return True
    return any(_is_run(folder) and _names(folder, file) for folder in (here, here.parent))


def _is_run(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file() and (folder / LAYERS_FILE).is_file()


def _names(folder: Path, file: Path) -> bool:
    """Tell whether the run in a folder has a file among those beside it; one that cannot be read names none."""
    with suppress(RequestError):
        return file.relative_to(folder).as_posix() in load(folder).files.values()
    return False


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside `path` and rename over it; on an error nothing is left behind. Raises OSError.

    A device or a pipe is written to as it is (a rename would put a file in its place), a link keeps its target.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path = path.resolve()
    # Not tempfile: its files are private to the owner, and runs are shared.
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _default_folder(now: datetime, label: str) -> Path:
    name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{_slug(label)}"
    _make_writable(DEFAULT_PARENT)
    for number in count(1):
        place = DEFAULT_PARENT / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            place.mkdir()
            return place
    raise AssertionError("count() ended")


def _make_writable(place: Path) -> None:
    probe = place / f".layerprof-{os.getpid()}.part"
    try:
        _make(place)
        probe.touch()  # permission bits do not tell: root, read-only mounts, quotas
        probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise RequestError(
            f"The output {place} is, or lies below, a file.", "Give --output a folder, new or empty."
        ) from error
    except OSError as error:
        raise RequestError(
            f"The output folder {place} cannot be written to: {error.strerror or error}.",
            "Give --output a folder that you may write to.",
        ) from error


def _make(place: Path) -> None:
    missing = [folder for folder in (place.absolute(), *place.absolute().parents) if not folder.exists()]
    _made.update(missing)
    place.mkdir(parents=True, exist_ok=True)


def _slug(label: str) -> str:
    last = re.split(r"[/\\]", label.rstrip("/\\"))[-1]
    return re.sub(r"[^a-z0-9._]+", "-", last.lower()).strip("-.")[:80] or "run"


def _run_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise RequestError(f"There is no run at {path}.", _HOW_TO_GET_A_RUN)
    if (path / RUN_FILE).is_file():
        return path / RUN_FILE
    inside = sorted(file.parent for file in path.glob(f"*/{RUN_FILE}"))
    if inside:
        shown = ", ".join(str(folder) for folder in inside[-3:])
        raise RequestError(f"{path} holds {len(inside)} runs and is none itself.", f"Give one of them, e.g. {shown}.")
    raise RequestError(f"The folder {path} holds no {RUN_FILE}.", _HOW_TO_GET_A_RUN)


def _check_format(file: Path, data: bytes) -> None:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"{file} is not JSON or is cut off: {error}.", _HOW_TO_GET_A_RUN) from error
    version = found.get("format") if isinstance(found, dict) else None
    if not isinstance(version, int) or "ledger" not in found:
        raise RequestError(f"{file} is JSON, but not a layerprof run.", _HOW_TO_GET_A_RUN)
    if version > FORMAT:
        raise RequestError(
            f"{file} has format {version}, written by a newer layerprof; this one reads up to {FORMAT}.",
            "Upgrade layerprof to read it: pip install --upgrade layerprof.",
        )


def _first_errors(error: ValidationError, most: int = 3) -> str:
    found = error.errors(include_url=False, include_input=False)
    told = [f"{'.'.join(str(part) for part in one['loc']) or 'the file'}: {one['msg'].lower()}" for one in found[:most]]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(told) + more


def _line(sample: Sample) -> bytes:
    return orjson.dumps(_plain(sample.model_dump(mode="python"), "", [])) + b"\n"


def _plain(value: Any, path: str, lost: list[str], above: tuple[int, ...] = ()) -> Any:
    """Return what JSON can hold: users' own instruments may leave any object in `passes`.

    `above` are the ids of what the value lies in. What holds itself, or lies too deep for readers of JSON, ends there.
    """
    if id(value) in above or len(above) > DEEPEST:
        return f"({type(value).__name__}, not stored: {'it holds itself' if id(value) in above else 'nested too deep'})"
    above = (*above, id(value))
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(value, "tolist"):  # numpy
        value = value.tolist()
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()  # halves of a broken character
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(path)
        return None
    if isinstance(value, dict):
        named = {key if isinstance(key, str) else _key(key): item for key, item in value.items()}
        return {key: _plain(item, f"{path}.{key}" if path else key, lost, above) for key, item in named.items()}
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{index}]", lost, above) for index, item in enumerate(value)]
    return value if isinstance(value, (int, float, NoneType)) else str(value)


def _key(key: Any) -> str:
    return " ".join(str(part) for part in key) if isinstance(key, tuple) else str(key)
