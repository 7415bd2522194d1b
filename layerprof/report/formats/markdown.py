"""The run as Markdown, for notes, issues and READMEs; what comes from models and datasets is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

from layerprof.records import Run, Statistic
from layerprof.report import balance, facts, layer_lines, memory, request, run_parts, samples, units, weights
from layerprof.report.markdown_text import escape, table

BESIDE_REPLAYED = (("active", "energy_active_j"), ("hot", "energy_hot_j"), ("scaled to close", "energy_reconciled_j"))

POSITIONS = (("tokens", "tokens_per_call"), ("KV", "kv_per_call"))


def render(run: Run, out: IO[str]) -> None:
    """Write the whole report."""
    for block in (
        _head(run),
        _end_to_end(run),
        _request(run),
        _parts(run),
        _hot_spots(run),
        _layers(run),
        _memory(run),
        _books(run),
        _warnings(run),
    ):
        lines = list(block)
        if lines:
            out.write("\n".join(lines) + "\n\n")


def _head(run: Run) -> Iterator[str]:
    state = "" if run.status == "done" else f" ({run.status})"
    yield f"# {escape(facts.title(run))}{state}"
    yield ""
    yield escape(" · ".join(facts.settings(run))) + "  "
    yield escape(facts.convention(run)) + ". " + escape(f"Measured {run.created}.")


def _end_to_end(run: Run) -> Iterator[str]:
    yield "## End to end"
    yield ""
    yield from table(("", "median", "95 % interval, counts, source"), _fact_rows(run), left=(0, 2))


def _fact_rows(run: Run) -> Iterator[Sequence[str]]:
    for fact in facts.end_to_end(run):
        yield fact.label, fact.value, fact.note


def _request(run: Run) -> Iterator[str]:
    parts = request.parts(run)
    if not parts:
        return
    yield "## Where it goes"
    yield ""
    yield f"{request.told(run)[:1].upper()}{request.told(run)[1:]}."
    yield ""
    total = run.ledger.request_s.total if run.ledger.request_s else None
    rows = [
        (
            part.name,
            units.seconds(part.total_s),
            units.percent(part.share),
            *(_statistic(part.each) if part.each else ("", "", "")),
        )
        for part in parts
    ]
    rows += [("total", units.seconds(total), "100 %", "", "", "")] if total else []
    yield from table(("part", "all batches", "%", "a batch", "95 % interval", "p95"), rows)


def _statistic(one: Statistic) -> tuple[str, str, str]:
    return units.seconds(one.median), units.interval(one.ci95, "s"), units.seconds(one.p95)


def _parts(run: Run) -> Iterator[str]:
    parts = run_parts.breakdown(run)
    if not parts:
        return
    yield f"## {samples.title(run, 'Inside generate()' if request.parts(run) else 'Where it goes')}"
    yield ""
    joules = _energy_title(run)
    titles = ("part", "phase", "time", "% time", "FLOPs", "% FLOPs", joules, "% energy", "busy/span")
    rows = (
        (
            part.label,
            part.phase.value if part.phase else "",
            units.seconds(part.sum.span_s),
            units.percent(part.span_share),
            units.bound(units.flops(part.sum.flops), part.sum.at_least),
            units.percent(part.flops_share),
            units.joules(part.sum.energy_j),
            units.percent(part.energy_share),
            units.percent(part.sum.busy_share),
        )
        for part in parts
    )
    yield from table(titles, rows, left=(0, 1))


def _hot_spots(run: Run) -> Iterator[str]:
    spots = layer_lines.hot_spots(run)
    if not spots:
        return
    yield f"## {samples.title(run, 'Hot spots')}"
    yield ""
    rows = (
        (
            spot.line.label + (f" ×{len(spot.line.rows)}" if len(spot.line.rows) > 1 else ""),
            spot.row.phase.value,
            units.percent(spot.share),
            units.seconds(spot.line.each("median_s")),
            f"{spot.against_kind:.2f}" if spot.against_kind is not None else units.MISSING,
            units.percent(spot.line.each("busy_share")),
            spot.remark,
        )
        for spot in spots
    )
    yield from table(("layer", "phase", "% each", "a call", "× its kind", "busy/span", ""), rows, left=(0, 1, 6))


def _layers(run: Run) -> Iterator[str]:
    if not run.layers:
        return
    yield f"## {samples.title(run, 'Layers')}"
    yield ""
    yield "Figures of one call, median; time as the share of all batches' windows."
    stored = weights.differ(run)
    beside, counted = (_measured(run, titles) for titles in (BESIDE_REPLAYED, POSITIONS))
    for group in layer_lines.layer_groups(run, fold=False):
        yield ""
        where = group.tower if group.tower == group.phase.value else f"{group.tower}, {group.phase.value}"
        yield f"### {where}" + (escape(f" ({group.prefix}.*)") if group.prefix else "")
        yield ""
        yield from (f"In its steps entered {group.entered}.", "") if group.entered else ()
        titles = (
            "layer",
            "calls",
            "% time",
            "median",
            "p95",
            *(title for title, _ in counted),
            "FLOPs",
            "bytes",
            "busy/span",
            "of roof",
            *((weights.TITLE,) if stored else ()),
            _energy_title(run),
            "est. energy",
            *(title for title, _ in beside),
        )
        names = [name for _, name in counted], [name for _, name in beside]
        yield from table(titles, (_layer_row(line, *names, stored=stored) for line in group.lines))


def _measured(run: Run, titles: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the titled figures that any row has: columns of others would be empty."""
    return [(title, name) for title, name in titles if any(getattr(row, name) is not None for row in run.layers)]


def _energy_title(run: Run) -> str:
    label = facts.energy_label(run)
    return f"energy ({label})" if label else "energy"


def _layer_row(
    line: layer_lines.LayerLine, counted: Sequence[str], beside: Sequence[str], *, stored: bool
) -> Sequence[str]:
    return (
        line.label,
        units.count(line.calls),
        units.percent(line.share),
        units.seconds(line.each("median_s")),
        units.seconds(line.each("p95_s")),
        *(units.positions(line.each(name)) for name in counted),
        units.bound(units.flops(line.each("flops")), line.at_least),
        units.bound(units.size(line.each("bytes")), line.bytes_at_least),
        units.percent(line.each("busy_share")),
        units.percent(line.each("roof_share")),
        *((weights.of(line),) if stored else ()),
        units.joules(line.each("energy_j")),
        units.joules(line.each("energy_estimate_j")),
        *(units.joules(line.each(name)) for name in beside),
    )


def _memory(run: Run) -> Iterator[str]:
    groups = memory.groups(run)
    if not groups:
        return
    yield f"## {samples.title(run, 'Memory')}"
    yield ""
    yield f"{memory.TOLD[0].upper()}{memory.TOLD[1:]}."
    for group in groups:
        yield ""
        where = group.tower if group.tower == group.phase.value else f"{group.tower}, {group.phase.value}"
        yield f"### {where}" + (escape(f" ({group.prefix}.*)") if group.prefix else "")
        yield ""
        rows = (
            (
                line.label + (f" ×{len(line.rows)}" if len(line.rows) > 1 else ""),
                *(units.size(line.each(name)) for _, name in memory.COLUMNS),
            )
            for line in group.lines
        )
        yield from table(("layer", *(title for title, _ in memory.COLUMNS)), rows)


def _books(run: Run) -> Iterator[str]:
    yield f"## {samples.title(run, 'Ledger')}"
    yield ""
    books = [book for book in balance.books(run) if book.measured]
    titles = ["", *(title for book in books for title in (f"{book.name.partition('_')[0]}, {book.scale.unit}", "%"))]
    if books:
        yield from table(titles, (_ledger_row(books, label) for label in balance.ledger_labels(run)))
        yield ""
    for book in balance.closings(run):
        yield f"- {escape(book.title)}: {escape(balance.verdict(book))}"
        yield from (f"  - {escape(note)}" for note in book.notes)


def _ledger_row(books: Sequence[balance.Book], label: str) -> Sequence[str]:
    cells = [label]
    for book in books:
        cells += [book.shown(label), units.bare_percent(book.share(label), "")]
    return cells


def _warnings(run: Run) -> Iterator[str]:
    notes = facts.warnings(run)
    if notes:
        yield "## Warnings"
        yield ""
    for note in notes:
        yield f"- {escape(note)}"
