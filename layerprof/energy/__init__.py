"""Counter ticks to joules with intervals, shares per layer, and the books that must close. Pure.

`counter` tells ticks, wraps, resets and failed reads apart; `fit` turns ticks into joules; `windows` adds label, flags
and reason; `attribute` shares a whole out to layers; `tdp` estimates where nothing can be measured.
"""

from layerprof.energy.share import (
    Amount,
    Attribution,
    LayerEnergy,
    amount,
    around,
    attribute,
    by_difference,
    span_seconds,
    totals,
    unavailable,
)
from layerprof.energy.tdp import estimate, find_tdp
from layerprof.energy.windows import EnergyReading, Record, State, Window, WindowReading, combine, read_window

__all__ = [
    "Amount",
    "Attribution",
    "EnergyReading",
    "LayerEnergy",
    "Record",
    "State",
    "Window",
    "WindowReading",
    "amount",
    "around",
    "attribute",
    "by_difference",
    "combine",
    "estimate",
    "find_tdp",
    "read_window",
    "span_seconds",
    "totals",
    "unavailable",
]
