"""Where a run went, as plain data: its parts by phase and kind of layer, with their shares."""

from __future__ import annotations

from dataclasses import dataclass, replace

from layerprof.books.ledger import Sum, outermost, sums
from layerprof.records import Phase, Run

SMALL = 0.01
"""Parts below this share of everything measured are shown together."""

KIND_NAMES = {"vision_block": "vision blocks", "decoder_layer": "decoder layers", "encoder_layer": "encoder layers"}


@dataclass(frozen=True, slots=True)
class RunPart:
    """A kind of layers in one phase, or what is left over, with its shares of the run."""

    label: str
    phase: Phase | None
    sum: Sum
    span_share: float | None
    flops_share: float | None
    energy_share: float | None
    blocks: bool = False


def breakdown(run: Run, join_below: float = SMALL) -> list[RunPart]:
    """Return where the run went, by phase and kind of layer.

    Parts whose share of everything is below `join_below` are joined.
    """
    grouped = sums(run.layers, lambda row: (row.phase, row.tower, row.kind))
    whole = _whole(run)
    towers: dict[str, set[str]] = {}
    for _, tower, kind in grouped:
        towers.setdefault(kind, set()).add(tower)
    parts: list[RunPart] = []
    small: list[RunPart] = []
    for (phase, tower, kind), total in grouped.items():
        name = KIND_NAMES.get(kind, kind if len(towers[kind]) == 1 else f"{tower} {kind}")
        label = _counted(total.rows, name) if kind in KIND_NAMES else name
        part = replace(_part(label, phase, total, whole), blocks=kind in KIND_NAMES)
        shares = [share for share in (part.span_share, part.flops_share, part.energy_share) if share is not None]
        (parts if max(shares, default=1.0) >= join_below else small).append(part)
    if small:
        joined = sum((part.sum for part in small), Sum())
        parts.append(_part(_counted(len(small), "small parts"), None, joined, whole))
    left = _left_over(whole, sum(grouped.values(), Sum()))
    if left is not None:
        left = replace(left, at_least=whole.at_least and _missed_outside(run))
        parts.append(_part(_left_over_name(run), None, left, whole))
    return parts


def phase_shares(run: Run) -> list[tuple[str, Phase | None, float]]:
    """Return each phase's share of the time, or of the FLOPs where no time was measured, and what is in no layer."""
    quantity, total = main_quantity(run)
    if not total:
        return []
    found = sums(run.layers, lambda row: row.phase)
    shares = [(phase.value, phase, (getattr(found[phase], quantity) or 0) / total) for phase in Phase if phase in found]
    left = 1 - sum(share for _, _, share in shares)
    return [*shares, (_left_over_name(run), None, left)] if left > 0 else [*shares]


def main_quantity(run: Run) -> tuple[str, float | None]:
    """Return the ledger's quantity that shares are of, and its total: time, or FLOPs where no time was measured.

    The total is None where it is only a lower bound: no share of it is known.
    """
    if run.ledger.span_s.total:
        return "span_s", run.ledger.span_s.total
    return "flops", None if run.ledger.flops.at_least else run.ledger.flops.total


def _left_over_name(run: Run) -> str:
    return "outside layers" if run.settings.get("layers", "all") == "all" else "everything else"


def _whole(run: Run) -> Sum:
    books_ = run.ledger
    flops = int(books_.flops.total) if books_.flops.total is not None else None
    at_least = bool(books_.flops.at_least)
    return Sum(flops=flops, span_s=books_.span_s.total, energy_j=books_.energy_j.total, at_least=at_least)


def _part(label: str, phase: Phase | None, total: Sum, whole: Sum) -> RunPart:
    return RunPart(
        label,
        phase,
        total,
        _over(total.span_s, whole.span_s),
        None if whole.at_least else _over(total.flops, whole.flops),
        _over(total.energy_j, whole.energy_j),
    )


def _missed_outside(run: Run) -> bool:
    """Tell whether operators without a formula ran elsewhere than in the layers that have rows."""
    missed = sum(operator.calls for operator in run.ledger.flops.not_counted.values())
    return missed > sum(sum(row.uncounted.values()) for row in outermost(run.layers))


def _counted(number: int, plural: str) -> str:
    return f"{number} {plural.removesuffix('s') if number == 1 else plural}"


def _over(value: float | None, whole: float | None) -> float | None:
    return value / whole if value is not None and whole else None


def _left_over(whole: Sum, listed: Sum) -> Sum | None:
    def minus(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    flops = minus(whole.flops, listed.flops)
    left = Sum(
        flops=None if flops is None else int(flops),
        span_s=minus(whole.span_s, listed.span_s),
        energy_j=minus(whole.energy_j, listed.energy_j),
    )
    return left if any(value for value in (left.flops, left.span_s, left.energy_j)) else None
