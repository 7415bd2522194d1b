"""What an examination is made of: findings by group, and the answers that are drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["yes", "partly", "no", "unknown", "info"]

MODEL_BYTES = 8e9
"""Room that Qwen2.5-VL-3B takes on disk and on a card in half precision."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `detail` says what was found, `remedy` what would change it."""

    group: str
    name: str
    state: State
    detail: str
    remedy: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether one quantity can be measured here, and how well."""

    quantity: str
    state: State
    how: str


@dataclass(frozen=True, slots=True)
class Examination:
    """The answers, and the findings they are drawn from."""

    answers: tuple[Answer, ...]
    findings: tuple[Finding, ...]


def guarded(group: str, name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what a check found; a check that breaks is a finding, too."""
    try:
        return check()
    except Exception as error:
        # A doctor that dies of the illness helps nobody: whatever a driver throws is told as it stands.
        text = f"the check itself failed: {type(error).__name__}: {error}".strip()
        return [Finding(group, name, "unknown", text)]
