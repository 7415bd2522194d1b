"""`layers.csv`: one line per layer and phase, every figure in its SI unit, empty where not measured."""

from __future__ import annotations

import csv
import io
from typing import Any

from layerprof.records import LayerRow, Run

COLUMNS = (
    "name",
    "tower",
    "kind",
    "index",
    "phase",
    "calls",
    "flops",
    "flops_useful",
    "flops_causal",
    "bytes",
    "bytes_weights",
    "bytes_activations",
    "bytes_kv",
    "tokens_per_call",
    "kv_per_call",
    "mixed_prefill_tokens",
    "mixed_decode_tokens",
    "memory_peak_bytes",
    "memory_kept_bytes",
    "memory_kept_kv_bytes",
    "weights_bytes",
    "weights_dtype",
    "span_total_s",
    "span_median_s",
    "span_p95_s",
    "busy_s",
    "busy_calls",
    "busy_span_s",
    "busy_share",
    "roof_share",
    "energy_j",
    "energy_ci95_low_j",
    "energy_ci95_high_j",
    "energy_quality",
    "energy_source",
    "energy_reason",
    "energy_active_j",
    "energy_hot_j",
    "energy_reconciled_j",
    "energy_estimate_j",
    "flops_at_least",
    "uncounted",
    "bytes_at_least",
)


def csv_text(run: Run) -> str:
    """Return the layer table as CSV with a header line."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(row) for row in run.layers)
    return out.getvalue()


def _flat(row: LayerRow) -> dict[str, Any]:
    """Return one row's figures under `COLUMNS`; None stays None, which CSV writes as nothing."""
    span, interval = row.span_s, row.energy_ci95
    nested = {
        "phase": row.phase.value,
        "span_total_s": span.total if span else None,
        "span_median_s": span.median if span else None,
        "span_p95_s": span.p95 if span else None,
        "energy_ci95_low_j": interval[0] if interval else None,
        "energy_ci95_high_j": interval[1] if interval else None,
        "energy_quality": row.energy_quality.value,
        "flops_at_least": row.at_least,
        "uncounted": "; ".join(f"{name} {calls}" for name, calls in row.uncounted.items()),
    }
    return {name: nested[name] if name in nested else getattr(row, name) for name in COLUMNS}
