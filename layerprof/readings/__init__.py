"""What is found and read in a live model: the layers, and what each instrument hands over.

In: what hooks and walks saw. Out: readings, of which the books make a `records.Run`.
May import: records.

Plain frozen dataclasses, since there are many of them. Units are SI and stand in the field's name.
"""

from __future__ import annotations

from layerprof.readings.answers import Generated, Made, Questions, Walked
from layerprof.readings.kernels import KernelReading, Lost
from layerprof.readings.layers import Chain, Key, Layer
from layerprof.readings.memory import MemoryReading
from layerprof.readings.spans import Span, SpanReading
from layerprof.readings.weights import WeightReading
from layerprof.readings.work import (
    ELSEWHERE,
    NOT_WATCHED,
    UNSEEN_KERNEL,
    Amount,
    Name,
    Uncounted,
    Work,
    WorkReading,
    added,
)

__all__ = [
    "ELSEWHERE",
    "NOT_WATCHED",
    "UNSEEN_KERNEL",
    "Amount",
    "Chain",
    "Generated",
    "KernelReading",
    "Key",
    "Layer",
    "Lost",
    "Made",
    "MemoryReading",
    "Name",
    "Questions",
    "Span",
    "SpanReading",
    "Uncounted",
    "Walked",
    "WeightReading",
    "Work",
    "WorkReading",
    "added",
]
