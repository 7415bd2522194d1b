"""Readings to books: for each quantity `layers + rest + residual = total`, and sums of rows that add.

Pure and free of torch. Layers may call each other, and a selector may ask for submodules beside them. Readings give
each moment, FLOP and kernel to the innermost found layer; a row shows a layer with everything that ran inside its
calls, and the ledger takes each figure once, whatever was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal, TypeVar

from layerprof.books import not_counted
from layerprof.books.rows import NOT_MEASURED, LayerEnergy
from layerprof.layers.nesting import LAYERS, accounts, short_names, whole_layers
from layerprof.readings import KernelReading, Layer, SpanReading, WorkReading
from layerprof.records import Apart, LayerRow, Ledger, LedgerColumn, NotCounted, NotRecorded

Group = TypeVar("Group", bound=Hashable)

OUTSIDE = "outside layers: "
"""Before the module that ran work under no layer, where a line of the books names it."""
ROUNDING = 1e-12
"""Share of the total that sums of doubles may be off by; a residual below it is zero."""


def close(
    layers: Sequence[Layer],
    spans: SpanReading | None = None,
    work: WorkReading | None = None,
    kernels: KernelReading | None = None,
    energy: LayerEnergy | None = None,
    *,
    total_energy_j: float | None = None,
    reasons: Mapping[str, str] | None = None,
) -> Ledger:
    """Return the books of the four quantities; the totals come from sources that know nothing of layers.

    FLOPs: counted op by op; span: the host clock around each batch of the latency pass; busy: every kernel of the
    trace; energy: `total_energy_j` of the bare pass. A quantity that was not read is None with a reason, which
    `reasons` (by the ledger's field names) may put better.
    """
    why = {**NOT_MEASURED, **(reasons or {})}
    account = accounts(layers)
    return Ledger(
        flops=_flops(work, account, why["flops"], fsum(spans.windows_s) if spans else None),
        span_s=_span(spans, account, {x.name for x in layers if not x.found}, why["span_s"]),
        busy_s=_busy(kernels, account, why["busy_s"]),
        energy_j=_energy(layers, energy, account, total_energy_j, why["energy_j"]),
    )


def _flops(reading: WorkReading | None, account: Mapping[str, str], reason: str, all_s: float | None) -> LedgerColumn:
    if reading is None:
        return _blank(reason)
    books: dict[str, int] = {LAYERS: 0}
    for (name, _), work in reading.layers.items():
        label = account.get(name, name)
        books[label] = books.get(label, 0) + work.flops
    located = {*account, *(name for name, _ in reading.layers)}
    missing = [place for place, _, _ in reading.uncounted]
    worked = {path for (path, _), work in reading.outside.items() if work.flops}
    short = short_names(worked | {place for place in missing if place not in located})
    for (path, _), work in reading.outside.items():
        if work.flops:
            label = f"{OUTSIDE}{short[path]}"
            books[label] = books.get(label, 0) + work.flops
    lines = [account.get(place, place) if place in located else f"{OUTSIDE}{short[place]}" for place in missing]
    return _with_bounds(books, reading, lines, not_counted.by_operator(reading, all_s))


def _with_bounds(
    books: Mapping[str, int], reading: WorkReading, lines: Sequence[str], missing: Mapping[str, NotCounted]
) -> LedgerColumn:
    """Return the column of what was counted; a line that misses work has a figure only where something is known."""
    residual = reading.total_flops - sum(books.values())
    known = {label: value for label, value in books.items() if value or label not in lines}
    rest: dict[str, float | int] = {label: value for label, value in known.items() if label != LAYERS}
    nothing = bool(missing) and not reading.total_flops
    return LedgerColumn(
        layers=known.get(LAYERS),
        rest=rest,
        residual=None if nothing else residual,
        total=None if nothing else reading.total_flops,
        reason=not_counted.told(missing) if nothing else None,
        not_counted=dict(missing),
        at_least=tuple(dict.fromkeys((*(line or "layers" for line in lines), "total"))) if lines else (),
    )


def _span(
    reading: SpanReading | None, account: Mapping[str, str], beside: Collection[str], reason: str
) -> LedgerColumn:
    """Add up each call's own time; the submodules `beside` the books have none."""
    if reading is None:
        return _blank(reason)
    parts = [(account.get(s.layer, s.layer), s.self_s) for s in reading.spans if s.self_s or s.layer not in beside]
    return _column([*parts, *reading.gaps_s.items()], fsum(reading.windows_s))


def _busy(reading: KernelReading | None, account: Mapping[str, str], reason: str) -> LedgerColumn:
    if reading is None:
        return _blank(reason)
    parts = [(account.get(name, name), seconds) for (name, _), seconds in reading.busy_s.items()]
    column = _column([*parts, *reading.buckets_s.items()], reading.total_s)
    return column.model_copy(update={"not_recorded": _not_recorded(reading)}) if reading.lost.launches else column


def _not_recorded(reading: KernelReading) -> NotRecorded:
    lost = reading.lost
    places = {f"{name} {phase}": count for (name, phase), count in lost.places.items()}
    return NotRecorded(launches=lost.launches, of=lost.of, may_be=lost.may_be_s, places=places)


def _energy(
    layers: Sequence[Layer], energy: LayerEnergy | None, account: Mapping[str, str], total: float | None, reason: str
) -> LedgerColumn:
    if energy is None or not (energy.amounts or energy.rest_j):
        known = energy.reason if energy and energy.reason else reason
        return LedgerColumn(layers=None, rest={}, residual=None, total=total, reason=known)
    whole = whole_layers(layers)
    amounts = {key: amount for key, amount in energy.amounts.items() if key[0] in whole}
    counted = amounts if energy.counted is None else energy.counted
    parts = [(account.get(name, name), amount.joules) for (name, _), amount in counted.items()]
    label = {"quality": energy.quality, "source": energy.source}
    column = _column([*parts, *energy.rest_j.items()], total or 0.0)
    if total is None:
        label |= {"residual": None, "total": None, "reason": "no end-to-end joules to close against"}
    return column.model_copy(update=label)


def _column(parts: Iterable[tuple[str, float]], total: float) -> LedgerColumn:
    books: dict[str, list[float]] = {LAYERS: []}
    for label, value in parts:
        books.setdefault(label, []).append(value)
    inside = fsum(books.pop(LAYERS))
    rest = {label: fsum(values) for label, values in books.items()}
    residual = total - fsum([inside, *rest.values()])
    if abs(residual) <= ROUNDING * abs(total):
        residual = 0.0
    return LedgerColumn(layers=inside, rest=rest, residual=residual, total=total)


def _blank(reason: str) -> LedgerColumn:
    return LedgerColumn(layers=None, rest={}, residual=None, total=None, reason=reason)


# --- sums of rows -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sum:
    """What rows come to together; adds up with `+` and `sum(..., Sum())`.

    None means that no row had the figure; rows without it beside rows with it count as nothing. `busy_s` is scaled
    from the traced calls to all calls, so that it compares with `span_s`. `at_least` says that `flops` is a lower
    bound.
    """

    rows: int = 0
    calls: int = 0
    flops: int | None = None
    bytes: int | None = None
    span_s: float | None = None
    busy_s: float | None = None
    energy_j: float | None = None
    at_least: bool = False

    @classmethod
    def of(cls, row: LayerRow) -> Sum:
        """Return one row's figures, of the calls that are in no other row."""
        part = row.apart or Apart.of(row)
        busy = row.busy_share * part.span_s if row.busy_share is not None and part.span_s is not None else None
        return cls(1, part.calls, part.flops, part.bytes, part.span_s, busy, part.energy_j, row.at_least)

    def __add__(self, other: Sum) -> Sum:
        return Sum(
            self.rows + other.rows,
            self.calls + other.calls,
            _plus(self.flops, other.flops),
            _plus(self.bytes, other.bytes),
            _plus(self.span_s, other.span_s),
            _plus(self.busy_s, other.busy_s),
            _plus(self.energy_j, other.energy_j),
            self.at_least or other.at_least,
        )

    def __radd__(self, other: Literal[0]) -> Sum:
        return self

    @property
    def busy_share(self) -> float | None:
        """Busy over span, None where either was not measured."""
        return self.busy_s / self.span_s if self.busy_s is not None and self.span_s else None


Number = TypeVar("Number", int, float)


def _plus(a: Number | None, b: Number | None) -> Number | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def outermost(rows_: Iterable[LayerRow]) -> tuple[LayerRow, ...]:
    """Return the rows whose figures add up: none whose calls are all in other rows.

    Rows of older files, which do not tell, are taken to lie inside each other as their names do.
    """
    listed = tuple(rows_)
    whole = whole_layers([Layer(row.name, row.tower, row.kind, row.index) for row in listed])
    return tuple(row for row in listed if (row.apart.calls > 0 if row.apart else row.name in whole))


def sums(rows_: Iterable[LayerRow], group: Callable[[LayerRow], Group]) -> dict[Group, Sum]:
    """Return the sums of the outermost rows by `group(row)`, in the rows' order."""
    result: dict[Group, Sum] = {}
    for row in outermost(rows_):
        key = group(row)
        result[key] = result.get(key, Sum()) + Sum.of(row)
    return result
