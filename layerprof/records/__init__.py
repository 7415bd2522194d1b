"""What a run is made of: frozen, versioned, free of torch.

In: what the books have put together, or a file. Out: a `Run`, which is what `run.json` holds, name for name.
May import: nothing of ours.

It is pydantic, so that a file written by hand or by another version is checked when it is read. The readings that it
is made of are in `readings`. Units are SI and stand in the field's name (`_s` seconds, `_j` joules, `flops`, `bytes`).
`None` means "not measured" and comes with a reason; `0` means "measured, and it was zero".
"""

from __future__ import annotations

from layerprof.records.ledgers import EnergyClosure, Ledger, LedgerColumn, NotCounted, NotRecorded, RequestColumn
from layerprof.records.run import (
    FORMAT,
    Apart,
    Energy,
    EnergyEstimate,
    Fed,
    FedTotals,
    LatencyTotals,
    LayerRow,
    Range,
    RequestTotals,
    Run,
    Sample,
    SpanStatistic,
    Statistic,
    TaskMetric,
    Totals,
    Wer,
)
from layerprof.records.terms import BLOCK_KINDS, IN_TURN, Phase, Quality, Record, Tower

__all__ = [
    "BLOCK_KINDS",
    "FORMAT",
    "IN_TURN",
    "Apart",
    "Energy",
    "EnergyClosure",
    "EnergyEstimate",
    "Fed",
    "FedTotals",
    "LatencyTotals",
    "LayerRow",
    "Ledger",
    "LedgerColumn",
    "NotCounted",
    "NotRecorded",
    "Phase",
    "Quality",
    "Range",
    "Record",
    "RequestColumn",
    "RequestTotals",
    "Run",
    "Sample",
    "SpanStatistic",
    "Statistic",
    "TaskMetric",
    "Totals",
    "Tower",
    "Wer",
]
