"""An estimate in the terminal: what it is of, phases with their bounds, memory, layers, books, notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import fsum
from typing import IO, TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from layerprof.books import not_counted
from layerprof.records import Phase
from layerprof.report import units
from layerprof.report.look import PHASE_STYLE, Column, Look, console_on

if TYPE_CHECKING:
    from layerprof.estimate.result import Estimate, EstimateMemory, EstimateRow, EstimateTotals

CONVENTION = (
    "2 FLOPs per multiply-accumulate, causal attention not halved, matrix work only; bytes are the least traffic"
)


def render(estimate: Estimate, out: Console | IO[str]) -> None:
    """Print an estimate on a Rich console, or write it to a text stream."""
    console = console_on(out, 100)
    look = Look.of(console)
    for section in (_header, _phases, _memory, _layers, _held, _books, _notes):
        pieces = list(section(estimate, look))
        for piece in pieces:
            console.print(piece, highlight=False)
        if pieces:
            console.print()


def _header(it: Estimate, look: Look) -> Iterator[RenderableType]:
    model, given = it.model, it.settings
    count = units.scale([model["parameters"]], " parameters")
    yield look.text("layerprof estimate ", "dim").append_text(look.text(model["name"], "bold"))
    if model.get("why"):
        yield look.text(model["why"], "dim")
    yield look.packed(
        [
            f"{model['architecture']}, {count.show(model['parameters'])} {count.unit} in {model['dtype']}",
            *([f"weights as {it.quantization['format']}"] if it.quantization else []),
            f"batch {given['batch_size']}",
            f"{given['prompt_tokens']} prompt tokens, {given['image_tokens']} of them image",
            f"{given['new_tokens']} new tokens",
        ]
    )
    if it.gpu:
        peak = it.gpu["peak_flops_s"]
        rate = f"{units.flops(peak)}/s" if peak else f"no {model['dtype']} unit"
        yield look.packed(
            [it.gpu["title"], rate, f"{units.size(it.gpu['bandwidth_bytes_s'])}/s", units.watts(it.gpu["power_w"])]
        )
    yield look.text(CONVENTION, "dim")


def _phases(it: Estimate, look: Look) -> Iterator[RenderableType]:
    names = [*(phase.value for phase in it.phases), "total"]
    sums = [*it.phases.values(), it.totals]
    styles = [*(PHASE_STYLE[phase] for phase in it.phases), "bold"]
    work = units.scale([s.flops for s in sums], "FLOP")
    moved = units.scale([s.bytes for s in sums], "B")
    time = units.scale([s.time_bound_s for s in sums], "s")
    joules = units.scale([s.energy_estimate_j for s in sums], "J")
    timed = it.totals.time_bound_s is not None
    # Of a total that is only a lower bound no share is known.
    whole = None if it.totals.flops_at_least else it.totals.time_bound_s if timed else it.totals.flops
    parts = [(s.time_bound_s if timed else s.flops) or 0 for s in sums[:-1]]
    shares = [part / whole if whole else None for part in parts]
    bars = [look.bar(share, 20, style) for share, style in zip(shares, styles, strict=False)]
    note = "no faster and, at full power, about this energy (estimated)" if it.gpu else "add --gpu NAME for bounds"
    yield look.heading("Phases", note)
    before = [*it.unquantized.phases.values(), it.unquantized.totals] if it.unquantized else []
    yield look.table(
        [
            Column("phase", [look.text(name, style) for name, style in zip(names, styles, strict=True)], 0, "left"),
            Column("", [*bars, Text()], 3, "left"),
            _figures(look, f"least {time.unit}", [time.show(s.time_bound_s) for s in sums]),
            *_compared(look, [(was.time_bound_s, s.time_bound_s) for was, s in zip(before, sums, strict=False)], time),
            _figures(look, work.unit, [units.bound(work.show(s.flops), s.flops_at_least) for s in sums]),
            _figures(look, moved.unit, [moved.show(s.bytes) for s in sums]),
            *_compared(look, [(was.bytes, s.bytes) for was, s in zip(before, sums, strict=False)], moved),
            _figures(look, "FLOP/B", [_intensity(s) for s in sums], 2),
            _figures(look, f"est. {joules.unit}", [joules.show(s.energy_estimate_j) for s in sums], 1),
        ]
    )
    yield from _rates(it, look)


def _compared(look: Look, pairs: Sequence[tuple[float | None, float | None]], fit: units.Scale) -> list[Column]:
    """Return what the model as it is has of a column, and how many times as much that is; none where it is that."""
    if not pairs:
        return []
    ratios = ["" if was is None or not now else f"{units.number(was / now)}x" for was, now in pairs]
    return [_figures(look, "was", [fit.show(was) for was, _ in pairs], 2), _figures(look, "", ratios)]


def _intensity(of: EstimateTotals) -> str:
    """Return FLOPs a byte; nothing where either is not known."""
    return units.number(of.flops / of.bytes) if of.flops is not None and of.bytes and not of.flops_at_least else ""


def _rates(it: Estimate, look: Look) -> Iterator[RenderableType]:
    """First token and tokens per second at best."""
    before = [s.time_bound_s for phase, s in it.phases.items() if phase is not Phase.DECODE]
    decode = it.phases.get(Phase.DECODE)
    steps = it.settings["new_tokens"] - 1
    parts = []
    if before and None not in before and it.settings["prompt_tokens"]:
        parts.append(f"first token after {units.seconds(fsum(s for s in before if s is not None))} or more")
    if decode and decode.time_bound_s and steps:
        each = decode.time_bound_s / steps
        rate = units.number(it.settings["batch_size"] / each)
        parts.append(f"then {units.seconds(each)} or more per token, {rate} tokens/s or fewer")
    if parts:
        yield look.packed(parts)


def _memory(it: Estimate, look: Look) -> Iterator[RenderableType]:
    memory = it.memory
    was = it.unquantized.memory if it.unquantized else None
    parts = [
        f"weights {units.size(memory.weights)}{f' (was {units.size(was.weights)})' if was else ''}",
        f"KV cache {units.size(memory.kv_cache)}",
        f"widest operator {units.size(memory.activations)}",
        f"together {units.size(memory.total)}",
        *([f"at the peak {units.size(memory.peak)}{_was(was)}"] if memory.peak is not None else []),
    ]
    if memory.device is not None:
        parts.append(f"{'fits in' if memory.fits else 'does NOT fit in'} {units.size(memory.device)}")
    yield look.heading("Memory", "before the framework's own share")
    yield look.packed(parts, "" if memory.fits is not False else "bold red")


def _was(before: EstimateMemory | None) -> str:
    return f" (was {units.size(before.peak)})" if before and before.peak is not None else ""


def _layers(it: Estimate, look: Look) -> Iterator[RenderableType]:
    yield look.heading(
        "Layers", "figures of one layer over all its calls, tokens and KV of one call; equal layers share a line"
    )
    for phase in it.phases:
        rows = [row for row in it.layers if row.phase is phase and (row.flops or row.bytes or row.uncounted)]
        lines = [list(group) for group in _alike(rows)]
        if not lines:
            continue
        yield Text("\n").append_text(look.text(phase.value, f"bold {PHASE_STYLE[phase]}"))
        yield look.table(_columns(look, lines, phase))


def _columns(look: Look, lines: Sequence[Sequence[EstimateRow]], phase: Phase) -> list[Column]:
    firsts = [line[0] for line in lines]
    work = units.scale([row.flops for row in firsts], "FLOP")
    moved = units.scale([row.bytes for row in firsts], "B")
    time = units.scale([row.time_bound_s for row in firsts], "s")
    joules = units.scale([row.energy_estimate_j for row in firsts], "J")
    weight = [
        fsum((row.time_bound_s if row.time_bound_s is not None else row.flops or 0) for row in line) for line in lines
    ]
    stored = any(row.bytes_unquantized is not None for row in firsts)
    timed = stored and any(row.time_bound_s is not None for row in firsts)
    plain = stored and not timed
    bounds = any(row.at_least for row in firsts)  # of which no shares are known
    whole = fsum(weight) or 1.0
    most, width = max([*weight, 1e-30]), 20 if look.width >= 110 else 8
    bars = [look.bar(None if bounds else share / most, width, PHASE_STYLE[phase]) for share in weight]
    return [
        Column("layer", [look.text(_label(line)) for line in lines], 0, "left", wraps=True),
        _figures(look, "", [f"×{len(line)}" if len(line) > 1 else "" for line in lines]),
        _figures(look, "calls", [units.count(row.calls) for row in firsts], 5),
        _figures(look, "tokens", [_positions(row.tokens_per_call) for row in firsts], 6),
        _figures(look, "KV", [_positions(row.kv_per_call) for row in firsts], 6),
        Column("", bars, 4, "left"),
        _figures(look, "%", ["" if bounds else units.bare_percent(share / whole) for share in weight]),
        _figures(look, f"least {time.unit}", [time.show(row.time_bound_s) for row in firsts]),
        *(_compared(look, [(row.time_bound_unquantized_s, row.time_bound_s) for row in firsts], time) if timed else []),
        _figures(look, work.unit, [units.bound(work.show(row.flops), row.at_least) for row in firsts]),
        _figures(look, moved.unit, [moved.show(row.bytes) for row in firsts]),
        *(_compared(look, [(row.bytes_unquantized, row.bytes) for row in firsts], moved) if plain else []),
        _figures(look, "FLOP/B", ["" if row.at_least else units.number(row.flops_per_byte or 0) for row in firsts], 2),
        Column("bound by", [look.text(_bound(row)) for row in firsts], 1, "left"),
        _figures(look, f"est. {joules.unit}", [joules.show(row.energy_estimate_j) for row in firsts], 3),
    ]


def _bound(row: EstimateRow) -> str:
    """Return what binds a layer, and what bound it in the model as it is where that was something else."""
    was = row.bound_unquantized
    return f"{row.bound or ''}, was {was}" if was and row.bound != was else row.bound or ""


def _positions(value: float | None) -> str:
    """Write positions of a mean call; nothing where a layer has none."""
    return "" if value is None else units.positions(value)


def _alike(rows: Sequence[EstimateRow]) -> list[list[EstimateRow]]:
    """Gather layers of one kind with the same figures, in the order of their first."""
    found: dict[tuple[object, ...], list[EstimateRow]] = {}
    for row in rows:
        figures = (row.calls, row.flops, row.bytes, row.tokens_per_call, row.kv_per_call)
        found.setdefault((row.tower, row.kind, *figures, *row.uncounted.items()), []).append(row)
    return list(found.values())


def _label(line: Sequence[EstimateRow]) -> str:
    first = line[0]
    return first.kind if len(line) == 1 and not first.index else f"{first.kind} {_ranges([row.index for row in line])}"


def _ranges(indices: Sequence[int]) -> str:
    """Write indices shortly: `0-6, 8-14`."""
    runs = [[i for _, i in run] for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _held(it: Estimate, look: Look) -> Iterator[RenderableType]:
    """Show what calls hold at most and leave in each phase; layers alike in all of them share a line."""
    rows: dict[str, dict[Phase, EstimateRow]] = {}
    for row in it.layers:
        if row.memory_peak_bytes is not None or row.weights_bytes:
            rows.setdefault(row.name, {})[row.phase] = row
    lines: dict[tuple[object, ...], list[EstimateRow]] = {}
    for of in rows.values():
        first = next(iter(of.values()))
        figures = ((phase, row.memory_peak_bytes, row.memory_kept_bytes) for phase, row in of.items())
        lines.setdefault((first.tower, first.kind, first.weights_bytes, *figures), []).append(first)
    if not lines:
        return
    shown = list(lines.values())

    def cells(phase: Phase, name: str) -> list[str]:
        found = [rows[line[0].name].get(phase) for line in shown]
        return ["" if row is None else units.size(getattr(row, name)) for row in found]

    keeping = [phase for phase in it.phases if any(r.memory_kept_bytes for r in it.layers if r.phase is phase)]
    yield look.heading("Memory by layer", "what one call holds at most, and leaves; weights as they lie in memory")
    yield look.table(
        [
            Column("layer", [look.text(_label(line)) for line in shown], 0, "left", wraps=True),
            _figures(look, "", [f"×{len(line)}" if len(line) > 1 else "" for line in shown]),
            _figures(look, "weights", [units.size(line[0].weights_bytes) for line in shown]),
            *(_figures(look, f"{phase} peak", cells(phase, "memory_peak_bytes")) for phase in it.phases),
            *(_figures(look, f"{phase} kept", cells(phase, "memory_kept_bytes"), 1) for phase in keeping),
        ]
    )


def _books(it: Estimate, look: Look) -> Iterator[RenderableType]:
    column = it.ledger["flops"]
    unknown = [name for name in column.at_least if name not in ("layers", "total", *column.rest)]
    rest = {name: value for name, value in column.rest.items() if value} | dict.fromkeys(unknown)
    residual = {} if column.at_least else {"residual": column.residual}  # of books that are not whole it says nothing
    figures = {"blocks": column.layers, **rest, **residual, "total": column.total}
    bounds = {"blocks" if name == "layers" else name for name in column.at_least}
    parts = [f"{name} {units.bound(units.flops(value), name in bounds)}" for name, value in figures.items()]
    yield look.heading("Ledger", "blocks + rest + residual = total, which is counted operator by operator")
    yield look.packed(parts)


def _notes(it: Estimate, look: Look) -> Iterator[RenderableType]:
    for note in it.notes:
        yield look.text(note, "yellow")
    if missing := not_counted.warning(it.ledger["flops"]):
        yield look.text(missing, "yellow")
    if it.gpu:
        yield look.text(f"Source of the device's figures: {it.gpu['source']}.", "dim")


def _figures(look: Look, title: str, cells: Sequence[str], gives_way: int = 0) -> Column:
    return Column(title, [look.text(cell) for cell in cells], gives_way)
