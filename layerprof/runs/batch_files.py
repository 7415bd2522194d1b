"""What a run keeps of each batch, in files beside `run.json`: end-to-end times, and the span of every layer.

Totals and medians cannot be compared in pairs; these can. `batches.csv` has a line for each batch of the bare pass, and
in `hooked_s` what the latency pass took for it; `spans.csv` has one for each layer, phase and batch of that pass (the
spans of all its calls added up). That pass may have walked a part of the batches, the first ones.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from layerprof.errors import RequestError
from layerprof.records import Phase

if TYPE_CHECKING:
    from layerprof.readings import Layer, Made, SpanReading, Walked

BATCHES_FILE = "batches.csv"
SPANS_FILE = "spans.csv"
NEEDED = ("batch", "rows", "latency_s", "first_token_s", "new_tokens")
REQUEST = ("read_s", "process_s", "copy_s", "made_s", "wall_s")
"""Columns of the request; files of older runs have none of them."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class BatchTime:
    """One batch of the bare pass.

    It holds the seconds of its `generate()`, seconds to the first token, tokens written in all rows; then what it took
    to read its images, to make tensors of them and to copy those to the device, `made_s` for all of that, and `wall_s`
    from where its turn began to its answer. None where that was not timed.
    """

    batch: int
    rows: int
    latency_s: float
    first_token_s: float | None
    new_tokens: int
    read_s: float | None = None
    process_s: float | None = None
    copy_s: float | None = None
    made_s: float | None = None
    wall_s: float | None = None


def write(
    folder: Path,
    bare: Sequence[Walked],
    hooked: Sequence[Walked],
    spans: SpanReading | None,
    selected: Sequence[Layer],
    made: Sequence[Made] = (),
) -> dict[str, str]:
    """Write the times of each batch, and of the selected layers in it where they were read.

    `made` is the making of the bare pass's batches, one each. Returns the files' names for `run.files`.
    """
    from layerprof.runs.store import write_atomic

    files = {"batches": BATCHES_FILE}
    write_atomic(folder / BATCHES_FILE, _batches(bare, hooked, made).encode())
    if spans is not None:
        names = {layer.name for layer in selected}
        write_atomic(folder / SPANS_FILE, _spans(spans, names).encode())
        files["spans"] = SPANS_FILE
    return files


def load_batches(folder: str | Path) -> tuple[BatchTime, ...]:
    """Return the batches beside a run, empty when there are none.

    Raises RequestError for a broken file, naming the line.
    """
    file = Path(folder) / BATCHES_FILE
    return tuple(_read(file, NEEDED, _batch_time))


def load_spans(folder: str | Path) -> dict[tuple[str, Phase], dict[int, float]]:
    """Return seconds by layer and phase and then by batch, empty when there are none. Raises RequestError."""
    found: dict[tuple[str, Phase], dict[int, float]] = defaultdict(dict)
    file = Path(folder) / SPANS_FILE
    for name, phase, batch, seconds in _read(file, ("name", "phase", "batch", "calls", "span_s"), _span):
        found[name, phase][batch] = seconds
    return dict(found)


def _batch_time(row: Mapping[str, str]) -> BatchTime:
    return BatchTime(
        batch=int(row["batch"]),
        rows=int(row["rows"]),
        latency_s=float(row["latency_s"]),
        first_token_s=float(row["first_token_s"]) if row["first_token_s"] else None,
        new_tokens=int(row["new_tokens"]),
        **{name: float(row[name]) if row.get(name) else None for name in REQUEST},
    )


def _span(row: Mapping[str, str]) -> tuple[str, Phase, int, float]:
    return row["name"], Phase(row["phase"]), int(row["batch"]), float(row["span_s"])


def _batches(walked: Sequence[Walked], hooked: Sequence[Walked], made: Sequence[Made]) -> str:
    rows = (
        (
            index,
            batch.rows,
            repr(batch.latency_s),
            _text(batch.generated.first_token_s),
            sum(batch.generated.new_tokens),
            _text(hooked[index].latency_s if index < len(hooked) else None),
            *map(_text, _request(batch, made[index] if index < len(made) else None)),
        )
        for index, batch in enumerate(walked)
    )
    return _csv((*NEEDED, "hooked_s", *REQUEST), rows)


def _request(batch: Walked, made: Made | None) -> Sequence[float | None]:
    """Return the columns of the request."""
    if made is None:
        return (None,) * len(REQUEST)
    wall_s = None if batch.wall_s is None else made.wall_s + batch.wall_s
    return made.read_s, made.process_s, made.copy_s, made.wall_s, wall_s


def _text(seconds: float | None) -> str:
    return "" if seconds is None else repr(seconds)


def _spans(reading: SpanReading, selected: set[str]) -> str:
    sums: dict[tuple[str, Phase, int], list[float]] = {}
    for span in reading.spans:
        if span.layer in selected:
            entry = sums.setdefault((span.layer, span.phase, span.batch), [0, 0.0])
            entry[0] += 1
            entry[1] += span.end_s - span.start_s
    rows = (
        (name, phase.value, batch, int(calls), repr(seconds)) for (name, phase, batch), (calls, seconds) in sums.items()
    )
    return _csv(("name", "phase", "batch", "calls", "span_s"), rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def _read(file: Path, columns: Sequence[str], convert: Callable[[Mapping[str, str]], R]) -> list[R]:
    """Return the file's lines converted, none where it is missing. Raises RequestError naming the line."""
    if not file.is_file():
        return []
    found: list[R] = []
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                if any(row.get(column) is None for column in columns):
                    raise ValueError("a column is missing")
                found.append(convert(row))
    except (OSError, ValueError, csv.Error) as error:
        raise RequestError(
            f"{file}, line {len(found) + 2}, is cut off or of another table ({error}).",
            "Take the file as layerprof wrote it, or remove it: then nothing is paired by it.",
        ) from None
    return found
