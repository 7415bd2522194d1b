"""Sums over what ran: a reading of work as one figure."""

from __future__ import annotations

from layerprof.readings import WorkReading


def parts(reading: WorkReading) -> int:
    """Add up the FLOPs of all layers and of what ran outside them."""
    return sum(work.flops for work in (*reading.layers.values(), *reading.outside.values()))
