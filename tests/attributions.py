"""What an attribution says, in microseconds and by name; and attributions built by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

from layerprof.trace.attribution import BUCKETS, Attribution, Row


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


def made(name: str, own: int, inclusive: int | None = None, **more: Any) -> Row:
    """Return a row of so many nanoseconds, by default of one call with nothing inside."""
    whole = own if inclusive is None else inclusive
    figures = {"calls": 1, "union_ns": whole, "span_ns": whole, "host_ns": 0, "host_self_ns": 0, "graph_ns": 0}
    given = {"phase": None, "kernels": 1, "top": (), **figures, **more}
    return Row(name=name, self_ns=own, inclusive_ns=whole, **given)


def holding(rows: Sequence[Row], buckets: Mapping[str, int] | None = None, **more: Any) -> Attribution:
    """Return an attribution of rows and buckets whose books close."""
    buckets_ns = dict.fromkeys(BUCKETS, 0) | dict(buckets or {})
    total = sum(row.self_ns for row in rows) + sum(buckets_ns.values())
    given: dict[str, Any] = {"device": "cuda", "events": len(rows), "skipped": 0, **more}
    return Attribution(rows=tuple(rows), buckets_ns=buckets_ns, bucket_top={}, total_ns=total, **given)


def stacked(layers: int = 24, slow: Container[int] = (), **more: Any) -> list[Row]:
    """Return a model of alike layers as `with_stack` names them, with nanoseconds that can be added in one's head.

    Model 10, embedding 50, and each layer 1000: 4 of its own, two norms of 150, attention 300 with four linears
    of 25 and 2 in a module that all layers share, MLP 396 with two linears of 150. Layers in `slow` have 500 more
    of their own.
    """
    rows = [made("Model_0", 10, 10 + 50 + 1000 * layers + 500 * sum(n in slow for n in range(layers)), **more)]
    rows.append(made("Embedding_0", 50, parent=0, **more))
    for n in range(layers):
        extra = 500 if n in slow else 0
        layer = len(rows)
        rows.append(made(f"Layer_{n}", 4 + extra, 1000 + extra, parent=0, **more))
        rows.append(made(f"Norm_{2 * n}", 150, parent=layer, **more))
        rows.append(made(f"Attention_{n}", 298 - 100, 300, parent=layer, **more))
        if n == 0:
            rows.append(made("Rotary_0", 2 * layers, parent=layer + 2, **{**more, "calls": layers}))
        rows += [made(f"Linear_{6 * n + i}", 25, parent=layer + 2, **more) for i in range(4)]
        rows.append(made(f"Norm_{2 * n + 1}", 150, parent=layer, **more))
        mlp = len(rows)
        rows.append(made(f"MLP_{n}", 96, 396, parent=layer, **more))
        rows += [made(f"Linear_{6 * n + i}", 150, parent=mlp, **more) for i in (4, 5)]
    return rows
