"""What an attribution says, in microseconds and by name."""

from __future__ import annotations

from layerprof.trace.attribution import Attribution, Row


def selves(result: Attribution) -> dict[tuple[str, str | None], float]:
    """Microseconds by row, rows without any left out."""
    return {(row.name, row.phase and row.phase.value): row.self_ns / 1e3 for row in result.rows if row.self_ns}


def buckets(result: Attribution) -> dict[str, float]:
    """Microseconds by bucket."""
    return {name: ns / 1e3 for name, ns in result.buckets_ns.items()}


def row(result: Attribution, name: str) -> Row:
    """Return the only row of that name."""
    (found,) = (row for row in result.rows if row.name == name)
    return found
