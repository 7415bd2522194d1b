"""What is known to fail today: exhibit and modes -> why; no modes are all of them. One that passes fails the tests."""

from __future__ import annotations

Known = dict[tuple[str, str], str]
"""(exhibit, mode, `*` for every one) -> why."""


def _of(why: str, *exhibits: str, modes: str = "*") -> Known:
    return {(exhibit, mode): why for exhibit in exhibits for mode in modes.split()}


HARM: Known = {}
"""Exhibits that a profiled block changes."""

COUNTS: Known = {}
"""Exhibits whose FLOPs are not those of the hand count."""
