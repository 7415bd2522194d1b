"""What an attribution says, in microseconds and by name."""

from __future__ import annotations

from collections import Counter

from layerprof.trace.attribution import Attribution, Row


def selves(result: Attribution) -> dict[tuple[str, str | None], float]:
    """Microseconds by name and phase, however they were named; those without any left out."""
    sums: Counter[tuple[str, str | None]] = Counter()
    for row in result.rows:
        sums[row.name, row.phase and str(row.phase)] += row.self_ns
    return {label: ns / 1e3 for label, ns in sums.items() if ns}


def buckets(result: Attribution) -> dict[str, float]:
    """Microseconds by bucket."""
    return {name: ns / 1e3 for name, ns in result.buckets_ns.items()}


def row(result: Attribution, name: str) -> Row:
    """Return the only row of that name."""
    (found,) = (row for row in result.rows if row.name == name)
    return found
