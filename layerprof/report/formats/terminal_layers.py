"""The layers in the terminal: where the run went, the hot spots, and one line per layer and phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from layerprof.records import Run
from layerprof.report import facts, layer_lines, request, run_parts, samples, units, weights
from layerprof.report.fact import joined
from layerprof.report.look import PHASE_SIGN, PHASE_STYLE, Column, Look

TOKENS, KV = "tokens", "KV"


def breakdown(run: Run, look: Look) -> Iterator[RenderableType]:
    """Yield the parts of the run with bars of their share of the time, or of the FLOPs where there is no time."""
    parts = run_parts.breakdown(run)
    if not parts:
        return
    timed = any(part.span_share is not None for part in parts)
    shares = [part.span_share if timed else part.flops_share for part in parts]
    time = units.scale([part.sum.span_s for part in parts], "s")
    work = units.scale([part.sum.flops for part in parts], "FLOP")
    joules = units.scale([part.sum.energy_j for part in parts], "J")
    note = "share of time" if timed else "share of FLOPs, no time was measured"
    if not timed and run.ledger.flops.at_least:
        note = "no time was measured, and FLOPs are a lower bound"
    title = "Inside generate()" if request.parts(run) else "Where it goes"
    yield look.heading(title, _with_label(run, joined([note, samples.of_part(run)])))
    yield from _phases(run, look)
    largest = max((share or 0 for share in shares), default=0)
    bars = [share / largest if share and largest else None for share in shares]
    yield look.table(
        [
            _left(look, "part", [part.label for part in parts]),
            _left(look, "phase", [part.phase.value if part.phase else "" for part in parts]),
            _bars(look, bars, [PHASE_STYLE[part.phase] for part in parts], fits=3),
            _right(look, "%", [units.bare_percent(share) for share in shares]),
            _right(look, time.unit, [time.show(part.sum.span_s) for part in parts]),
            _right(look, work.unit, [units.bound(work.show(part.sum.flops), part.sum.at_least) for part in parts]),
            _right(look, "% FLOPs", [units.bare_percent(part.flops_share) for part in parts], 4),
            _right(look, joules.unit, [joules.show(part.sum.energy_j) for part in parts], 1),
            _right(look, "% energy", [units.bare_percent(part.energy_share) for part in parts], 5),
            _right(look, "busy/span", [units.percent(part.sum.busy_share) for part in parts], 2),
        ]
    )


def _phases(run: Run, look: Look) -> Iterator[RenderableType]:
    shares = run_parts.phase_shares(run)
    if not shares:
        return
    yield from look.cut(
        [
            (f"{name} {units.percent(share)}", share, PHASE_STYLE[phase], PHASE_SIGN[phase])
            for name, phase, share in shares
        ]
    )
    yield Text()


def hot_spots(run: Run, look: Look, most: int = 5) -> Iterator[RenderableType]:
    """Yield the layers that take most."""
    spots = layer_lines.hot_spots(run, most)
    if not spots:
        return
    rows = [spot.row for spot in spots]
    time = units.scale([spot.line.each("median_s") for spot in spots], "s")
    bars = [spot.share / spots[0].share for spot in spots]
    title = samples.title(run, "Hot spots")
    yield look.heading(title, "what each takes; ×kind: against the median of its kind and phase")
    yield look.table(
        [
            _left(look, "layer", [spot.line.label for spot in spots]),
            _right(look, "", [_many(spot.line) for spot in spots]),
            _left(look, "phase", [row.phase.value for row in rows]),
            _bars(look, bars, [PHASE_STYLE[row.phase] for row in rows], fits=3),
            _right(look, "% each", [units.bare_percent(spot.share) for spot in spots]),
            _right(look, f"{time.unit}/call", [time.show(spot.line.each("median_s")) for spot in spots]),
            _right(look, "×kind", [_times(spot.against_kind) for spot in spots], 1),
            _right(look, "busy/span", [units.percent(spot.line.each("busy_share")) for spot in spots], 2),
            _left(look, "", [spot.remark for spot in spots], gives_way=2, style="yellow"),
            _left(look, "heaviest kernel", [row.top_kernels[0][0][:40] if row.top_kernels else "" for row in rows], 4),
        ]
    )


def groups(run: Run, look: Look, every_layer: bool = False) -> Iterator[RenderableType]:
    """Yield the layer tables, one per phase and tower; figures are of one call."""
    found = layer_lines.layer_groups(run, fold=False if every_layer else None)
    folded = any(len(line.rows) > 1 for group in found for line in group.lines)
    note = _with_label(run, "figures of one call, median")
    told = f"{note}; neighbours alike share a line, all in layers.csv" if folded else note
    yield look.heading(samples.title(run, "Layers"), told)
    label_width = max((len(line.label) + 2 * line.depth for group in found for line in group.lines), default=0)
    for group in found:
        where = f"{group.tower} · {group.phase.value}" if group.tower != group.phase.value else group.tower
        style = f"bold {PHASE_STYLE[group.phase]}"
        columns = _layer_columns(look, group, label_width, stored=weights.differ(run))
        beside = [f"{group.prefix}.*" if group.prefix else "", group.entered, _positions(look, group, columns)]
        dim = look.text("".join(f"  {part}" for part in beside if part), "dim")
        yield Text("\n" if group is not found[0] else "").append_text(look.text(where, style)).append_text(dim)
        yield look.table(columns)


def _positions(look: Look, group: layer_lines.Group, columns: Sequence[Column]) -> str:
    """Return the positions of a call where all blocks have the same and the column of them has no room."""
    shown = {column.title for column in look.fitting(columns)}
    told = ((TOKENS, "tokens_per_call", "{} tokens a call"), (KV, "kv_per_call", "{} in KV"))
    parts = [
        form.format(units.positions(group.blocks(name)[0]))
        for title, name, form in told
        if title not in shown and group.blocks(name) and not group.differs(name)
    ]
    return ", ".join(parts)


def _with_label(run: Run, note: str) -> str:
    """Add how the joules were obtained, where there are any: no joule stands without its label."""
    label = facts.energy_label(run)
    return f"{note}; joules {label}" if label else note


def _layer_columns(look: Look, group: layer_lines.Group, label_width: int, *, stored: bool) -> list[Column]:
    lines = group.lines
    style = PHASE_STYLE[group.phase]

    def figures(name: str) -> list[float | None]:
        return [line.each(name) for line in lines]

    def seldom(name: str) -> int:
        """Positions stay where layers differ in them, else they are the first to go."""
        return 1 if group.differs(name) else 5

    time = units.scale(figures("p95_s"), "s")
    work = units.scale(figures("flops"), "FLOP")
    moved = units.scale(figures("bytes"), "B")
    joules = units.scale(figures("energy_j"), "J")
    given, read = figures("tokens_per_call"), figures("kv_per_call")
    modelled = units.scale(figures("energy_estimate_j"), "J")
    labels = [("  " * line.depth + line.label).ljust(label_width) for line in lines]
    each = [line.share / len(line.rows) if line.share else 0.0 for line in lines]
    relative = [share / max(each) if share else None for share in each]
    return [
        _left(look, "layer", labels),
        _right(look, "", [_many(line) for line in lines]),
        _right(look, "calls", [units.count(line.calls) for line in lines], 5),
        _bars(look, relative, [style] * len(lines), fits=4),
        _right(look, "% time", [units.bare_percent(line.share) for line in lines]),
        _right(look, time.unit, [time.show(value) for value in figures("median_s")]),
        _right(look, "p95", [time.show(value) for value in figures("p95_s")], 3),
        _right(look, TOKENS, [units.positions(value) for value in given], seldom("tokens_per_call")),
        _right(look, KV, [units.positions(value) for value in read], seldom("kv_per_call")),
        _right(look, work.unit, [units.bound(work.show(line.each("flops")), line.at_least) for line in lines]),
        _right(
            look, moved.unit, [units.bound(moved.show(line.each("bytes")), line.bytes_at_least) for line in lines], 2
        ),
        *([_left(look, weights.TITLE, [weights.of(line) for line in lines], 2)] if stored else []),
        _right(look, "busy/span", [units.percent(value) for value in figures("busy_share")], 2),
        _right(look, "of roof", [units.percent(value) for value in figures("roof_share")], 6),
        _right(look, joules.unit, [joules.show(value) for value in figures("energy_j")], 1),
        _right(look, f"est. {modelled.unit}", [modelled.show(value) for value in figures("energy_estimate_j")], 4),
        _right(look, f"active {joules.unit}", [joules.show(value) for value in figures("energy_active_j")], 7),
        _right(look, f"hot {joules.unit}", [joules.show(value) for value in figures("energy_hot_j")], 8),
    ]


def _bars(look: Look, shares: Sequence[float | None], styles: Sequence[str], fits: int) -> Column:
    width = 24 if look.width >= 110 else 10
    cells = [look.bar(share, width, style) for share, style in zip(shares, styles, strict=True)]
    return Column("", cells, fits, "left")


def _left(
    look: Look, title: str, cells: Sequence[str], gives_way: int = 0, *, style: str = "", wraps: bool = False
) -> Column:
    return Column(title, [look.text(cell, style) for cell in cells], gives_way, "left", wraps)


def _right(look: Look, title: str, cells: Sequence[str], gives_way: int = 0) -> Column:
    return Column(title, [_dim_missing(look.text, cell) for cell in cells], gives_way)


def _dim_missing(text: Callable[..., Text], cell: str) -> Text:
    return text(cell, "dim" if cell in (units.MISSING, "0") else "")


def _many(line: layer_lines.LayerLine) -> str:
    return f"×{len(line.rows)}" if len(line.rows) > 1 else ""


def _times(ratio: float | None) -> str:
    return f"{ratio:.2f}" if ratio is not None else units.MISSING
