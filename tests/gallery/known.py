"""What is known to fail today: (exhibit, mode) -> why; `*` is every mode. An entry that passes fails the tests."""

from __future__ import annotations

HARM: dict[tuple[str, str], str] = {}
"""Exhibits that a profiled block changes."""

COUNTS: dict[tuple[str, str], str] = {}
"""Exhibits whose FLOPs are not those of the hand count."""
