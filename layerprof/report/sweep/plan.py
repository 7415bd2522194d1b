"""The cells that a sweep would have, in a terminal: what is there already, and what is left to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.console import Console

from layerprof.report.look import Column, Look
from layerprof.sweep.engines.engine import Refusal
from layerprof.sweep.plan import Step

SETTINGS = ("dataset", "batch_size", "image_size", "max_input_len", "optimization", "device", "dtype", "samples")


def render(steps: Sequence[Step], console: Console) -> None:
    """Print a line for each cell, and how many are left."""
    look = Look.of(console)
    states = [_state(step) for step in steps]
    who = [step.cell.choices if isinstance(step.who, Refusal) else step.who.choices for step in steps]
    columns = [
        Column("cell", [look.text(step.key[:8]) for step in steps], 0, "left"),
        _setting(look, "model", [choices.get("model", "auto") for choices in who], "left"),
    ]
    columns += [_setting(look, name, [choices.get(name) for choices in who]) for name in _names(who)]
    columns += [
        Column("tables", [look.text(", ".join(step.cell.points)) for step in steps], 3, "left", wraps=True),
        Column("state", [look.text(state) for state in states], 0, "left", wraps=True),
    ]
    console.print(look.table(columns), highlight=False)
    left = sum(state == "to measure" for state in states)
    console.print(look.text(f"{len(steps)} cells, {left} to measure."), highlight=False)


def _names(who: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings that have a column: those of every sweep, and others in which its cells differ."""
    further = dict.fromkeys(name for choices in who for name in choices if name not in (*SETTINGS, "model"))
    return [*SETTINGS, *(name for name in further if len({_told(choices.get(name)) for choices in who}) > 1)]


def _setting(look: Look, name: str, values: Sequence[Any], justify: Literal["left", "right"] = "right") -> Column:
    """Return a setting's column; one in which cells differ gives way last, or they would look alike."""
    told = [_told(value) for value in values]
    return Column(name, [look.text(one) for one in told], 1 if len(set(told)) > 1 else 2, justify)


def _told(value: Any) -> str:
    return "-" if value is None else str(value)


def _state(step: Step) -> str:
    if isinstance(step.who, Refusal):
        return f"cannot run: {step.who.reason}"
    return f"cached: {step.before.status.value}" if step.before else "to measure"
