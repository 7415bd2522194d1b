"""The ledger's columns, ready to show, and whether they balance, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerprof.books import not_counted
from layerprof.energy.amount import TOLERANCE
from layerprof.records import EnergyClosure, LedgerColumn, NotRecorded, Quality, Run
from layerprof.report import request, samples, units
from layerprof.report.facts import energy_label
from layerprof.trace.attribution import NOT_RECORDED

NEGLIGIBLE = 0.01
"""A residual up to this share of the total counts as balanced."""
NAMED = 3
"""Rows without a figure that are named before the rest is only counted."""


@dataclass(frozen=True, slots=True)
class Book:
    """One quantity's ledger column, ready to show; `notes` are what must be known to judge it."""

    name: str
    title: str
    scale: units.Scale
    column: LedgerColumn
    closure: EnergyClosure | None = None
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether there is anything to show in its column."""
        return self.column.layers is not None or (bool(self.column.at_least) and self.column.total is not None)

    def cell(self, label: str) -> float | None:
        """Return the figure of a line of `ledger_labels`."""
        if label in ("layers", "residual", "total"):
            value: float | None = getattr(self.column, label)
            return value
        return self.column.rest.get(label)

    def shown(self, label: str) -> str:
        """Return the figure as text in the book's scale; empty where the quantity has none of that name."""
        lost = self.column.not_recorded
        if label == NOT_RECORDED:
            return "" if lost is None else "?" if lost.may_be is None else f"≈{self.scale.show(lost.may_be)}"
        value, at_least = self.cell(label), label in self.column.at_least
        if label == "residual" and self.column.at_least and not value:
            return units.MISSING  # what was counted adds up; of books that are not whole that is no residual of zero
        return "" if value is None and not at_least else units.bound(self.scale.show(value), at_least)

    def share(self, label: str) -> float | None:
        """Return the figure's share of the total; None where that is only a lower bound."""
        value, total = self.cell(label), None if self.column.at_least else self.column.total
        return value / total if value is not None and total else None


def books(run: Run) -> list[Book]:
    """Return the ledger's columns in order, measured or not; that of memory only where the run has one."""
    quality, _, source = energy_label(run).partition(": ")
    energy = f"energy, {quality} ({source})" if quality else "energy"
    titles = [("flops", "FLOPs", "FLOP"), ("span_s", "span", "s"), ("busy_s", "busy", "s"), ("energy_j", energy, "J")]
    titles += [("memory_bytes", "memory at its peak", "B")] if run.ledger.memory_bytes else []
    found = []
    for name, title, unit in titles:
        column: LedgerColumn = getattr(run.ledger, name)
        scale = units.scale([column.total, column.layers, *column.rest.values()], unit)
        closure, notes = (run.energy_closure, _energy_notes(run)) if name == "energy_j" else (None, ())
        taken = _taken_notes(run) if name == "flops" else ()
        found.append(Book(name, title, scale, column, closure, (*notes, *taken, *_not_recorded_notes(column))))
    return found


def closings(run: Run) -> list[Book]:
    """Return every book that closes: the request's first, whose parts have a table of their own, then the columns."""
    column = run.ledger.request_s
    if column is None:
        return books(run)
    parts = {name: seconds for name in request.PARTS if (seconds := getattr(column, name)) is not None}
    whole = LedgerColumn(layers=None, rest=parts, residual=column.residual, total=column.total, reason=column.reason)
    title = f"request, of all {units.many(run.samples, 'sample')}" if samples.part(run) else "request"
    scale = units.scale([column.total, *parts.values()], "s")
    return [Book("request_s", title, scale, whole), *books(run)]


def _energy_notes(run: Run) -> tuple[str, ...]:
    """Return what stands below the verdict on energy: rows without a figure, and why measuring ended."""
    closure, quality = run.energy_closure, run.ledger.energy_j.quality
    if closure is None:
        shared = "the layers' joules are shares of what was measured, so that they add up is no proof of them"
        return (shared,) if quality is Quality.ATTRIBUTED else ()
    notes = []
    if closure.missing:
        named = ", ".join(f"{name} in {phase}" for name, phase in closure.missing[:NAMED])
        more = ", ..." if len(closure.missing) > NAMED else ""
        count = f"{len(closure.missing)} of {closure.rows} rows have no figure"
        notes.append(f"{count}, and what they took is in the residual: {named}{more}")
    else:
        notes.append(f"all {closure.rows} rows have a figure")
    if closure.without_interval:
        notes.append(f"{closure.without_interval} rows were measured once: their doubt is not in the interval")
    notes += _times_notes(closure)
    return (*notes, f"measuring ended: {closure.stopped or 'it does not say why'}")


def _taken_notes(run: Run) -> tuple[str, ...]:
    """Return that FLOPs of passes through a user's own model are those of others, which were given the same."""
    counting = run.passes.get("counting") or {}
    if not counting.get("known"):
        return ()
    of = f"{counting['known']:,} of {counting['steps']:,} passes"
    return (f"{of} through the model were not watched, and are taken to have done what equal ones did",)


def _times_notes(closure: EnergyClosure) -> list[str]:
    """Return what is to be said of times: of the window against the latency pass, of replayed calls in the model."""
    notes = []
    if closure.pace is not None and abs(closure.pace - 1) > TOLERANCE:
        notes.append(
            f"under the counter the answers took {closure.pace:.2f} of the latency pass's time, so calls and gaps are "
            "taken to be that share of theirs"
        )
    if closure.unlike and closure.unlike_ratios:
        low, high = (f"{ratio:.2f}" for ratio in closure.unlike_ratios)
        notes.append(
            f"calls of {closure.unlike} rows took another time replayed ({low if low == high else f'{low} to {high}'} "
            f"of that in the model): the difference is waiting at {units.watts(closure.waiting_w)}, and that it may be "
            "work is in the interval"
        )
    return notes


def _not_recorded_notes(column: LedgerColumn) -> tuple[str, ...]:
    """Return what the profiler lost, in words; nothing where it lost nothing."""
    return () if column.not_recorded is None else (not_recorded(column.not_recorded, column.total),)


def not_recorded(lost: NotRecorded, total: float | None) -> str:
    """Return in one sentence how many launches have no record, where, and how much that may be."""
    share = f" ({units.percent(lost.may_be / total)} more)" if lost.may_be is not None and total else ""
    much = "for how long is not known" if lost.may_be is None else f"perhaps {units.seconds(lost.may_be)}{share}"
    named = list(lost.places.items())[:NAMED]
    where = ", ".join(f"{count} in {place}" for place, count in named)
    more = ", ..." if len(lost.places) > NAMED else ""
    return (
        f"{units.count(lost.launches)} of {units.count(lost.of)} launches have no record of what they ran, {much}, "
        f"which is in no figure{f': {where}{more}' if where else ''}"
    )


def ledger_labels(run: Run, kept: Sequence[Book] | None = None) -> list[str]:
    """Return the lines of these books, by default of all columns.

    They are layers, the rest by name (but not what is zero throughout), residual and total. What is not known of the
    rest, for want of a formula, has a line, too.

    Below the total stands what the profiler lost, where it did: nobody measured it, so it is no part of a sum.
    """
    rest: dict[str, bool] = {}
    kept = books(run) if kept is None else kept
    for book in kept:
        for label, value in book.column.rest.items():
            rest[label] = rest.get(label, False) or value != 0
        for label in book.column.at_least:
            if label not in ("layers", "total"):
                rest[label] = True
    lost = [NOT_RECORDED] if any(book.column.not_recorded for book in kept) else []
    return ["layers", *(label for label, seen in rest.items() if seen), "residual", "total", *lost]


def verdict(book: Book) -> str:
    """Return the state of one ledger column: balanced, open, or why it cannot be closed.

    FLOPs that miss operators are at least what they are: that what was counted adds up closes no books.
    """
    column = book.column
    if book.closure is not None:
        return _closing(book.closure)
    if column.not_counted:
        state = "not known" if column.total is None else "at least"
        open_by = f"; residual {book.scale.show(column.residual)} {book.scale.unit}" if column.residual else ""
        return f"{state}; {not_counted.told(column.not_counted)}{open_by}"
    if column.residual is None:
        state = "not measured" if column.layers is None else "cannot be closed"
        return f"{state}: {column.reason or 'no reason was given'}"
    if column.residual == 0:
        return "balanced as far as recorded" if column.not_recorded else "balanced exactly"
    share = book.share("residual")
    if share is None:
        return f"residual {book.scale.show(column.residual)} {book.scale.unit}"
    state = "balanced" if abs(share) <= NEGLIGIBLE else "open"
    return f"{state}, residual {units.percent(share)} of the total"


def _closing(closure: EnergyClosure) -> str:
    """Return whether energy closes by its rule: the residual with its interval, and how much is allowed."""
    low, high, left = (100 * joules / closure.total_j for joules in (*closure.residual_ci95, closure.residual_j))
    places = 1 if max(abs(low), abs(high)) >= 1 else 2
    residual = f"{left:+.{places}f} % [{low:+.{places}f}, {high:+.{places}f}] of the total"
    doubt = "" if closure.tolerance <= TOLERANCE else ", which is its own doubt"
    word = "closes" if closure.passed else "does not close"
    return f"{word}, residual {residual}, {units.percent(closure.tolerance)} allowed{doubt}"
