"""Resting with the device's clocks up: what a pause inside a run costs, apart from any work."""

from __future__ import annotations

from collections.abc import Callable

from layerprof.energy.instruments import Clock


def rest_awake(clock: Clock, seconds: float, pause_s: Callable[[], float], mark: Callable[[], object]) -> None:
    """Rest for `seconds` in pauses of `pause_s()` each, with a `mark` on the device before each of them.

    Without any work its clocks would drop, as they do not in the pauses of a run; a mark is next to none.
    """
    end = clock.now() + seconds
    while clock.now() < end:
        mark()
        clock.sleep(pause_s())
