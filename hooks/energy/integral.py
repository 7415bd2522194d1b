"""Joules where a device states its power alone: trapezoids between good reads. No counter, and labelled so."""

from __future__ import annotations

BEGINNING_J = 1e-9
"""What an integral begins with: 0 joules would be taken for a failed read (`energy.counter.Unwrapper`)."""


class PowerIntegral:
    """Joules since the first read, from watts."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._joules = BEGINNING_J

    def add(self, t_s: float, power_w: float | None) -> float | None:
        """Take the power at `t_s` seconds, None for a failed read; return the joules so far, None for a failed one."""
        if power_w is None:
            return None
        if self._last is not None:
            before_s, before_w = self._last
            self._joules += (power_w + before_w) / 2 * (t_s - before_s)
        self._last = (t_s, power_w)
        return self._joules
