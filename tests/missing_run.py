"""The small run with three operators that nobody knows in it: some of its FLOPs are lower bounds, some are not known.

The second decoder layer runs `x::fused_mlp` in prefill, a quarter of all time, and has 20 GFLOP beside it; nothing but
`x::fold` runs in the merger; `x::rope` runs under a module outside layers.
"""

from __future__ import annotations

from typing import Any

from sample_run import GIGA, LANGUAGE, MEGA, VISION, ledger, sample_run, totals

from layerprof.records import LayerRow, LedgerColumn, NotCounted, Run

MLP, FOLD, ROPE = "x::fused_mlp", "x::fold", "x::rope"
TOLD = (
    f"2 calls of {MLP} in {LANGUAGE}.layers.1 (25.0 % of the time); 2 calls of {FOLD} in {VISION}.merger; "
    f"12 calls of {ROPE} in {LANGUAGE}.rotary_emb have no formula"
)
"""What every report says of it."""
INSIDE = {(f"{LANGUAGE}.layers.1", "prefill"): {MLP: 2}, (f"{VISION}.merger", "vision"): {FOLD: 2}}


def missing_run(**changes: Any) -> Run:
    """Return the run, with whole fields replaced by `changes`."""
    books = ledger()
    column = LedgerColumn(
        layers=71 * GIGA,
        rest={name: value for name, value in books.flops.rest.items() if name != "merger"},
        residual=0,
        total=74_701 * MEGA,
        not_counted={
            MLP: NotCounted(calls=2, share=0.25, places={f"{LANGUAGE}.layers.1 prefill": 2}),
            FOLD: NotCounted(calls=2, places={f"{VISION}.merger vision": 2}),
            ROPE: NotCounted(
                calls=12, places={f"{LANGUAGE}.rotary_emb prefill": 2, f"{LANGUAGE}.rotary_emb decode": 10}
            ),
        },
        at_least=("layers", "merger", "outside layers: rotary_emb", "total"),
    )
    bounds = {"flops": 74_701 * MEGA, "flops_per_sample": 74_701 * MEGA / 4, "flops_at_least": True}
    values: dict[str, Any] = {
        "totals": totals().model_copy(update=bounds),
        "layers": tuple(_row(row) for row in sample_run().layers),
        "ledger": books.model_copy(update={"flops": column}),
        "uncounted_ops": {MLP: 2, FOLD: 2, ROPE: 12},
        "warnings": (f"FLOPs are at least those given: {TOLD}.",),
    }
    return sample_run(**(values | changes))


def _row(row: LayerRow) -> LayerRow:
    missed = INSIDE.get((row.name, row.phase.value))
    if missed is None:
        return row
    nothing = {"flops": None} if row.kind == "merger" else {}
    return row.model_copy(update={"uncounted": missed, "roof_share": None} | nothing)
