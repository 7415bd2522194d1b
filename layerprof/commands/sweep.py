"""`layerprof sweep`: what it was asked for, checked; its cells, shown; carried out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.errors import RequestError
from layerprof.report.sweep.progress import Bar, Lines
from layerprof.settings import unknown_choice
from layerprof.sweep import conduct, experiment_file
from layerprof.sweep.engines import Refusal

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Request:
    """A sweep as the command line asks for it, checked."""

    experiment: Path
    output: Path | None
    overrides: dict[str, Any]
    only: dict[str, tuple[str, ...]]
    engine: str
    options: dict[str, Any]


def request(
    experiment: Path,
    output: Path | None,
    engine: str,
    only: list[str] | None,
    assignments: list[str] | None,
    ray_address: str | None,
    **named: Any,
) -> Request:
    """Return the checked request. Raises RequestError for settings and values that do not exist."""
    from layerprof.sweep import engines

    if engine not in engines.NAMES:
        raise unknown_choice("engine", engine, engines.NAMES)
    given = experiment_file.parse_assignments(assignments, "--set")
    overrides = {name: experiment_file.typed(name, ",".join(values)) for name, values in given.items()}
    for name, value in named.items():
        if value is not None:
            overrides[name] = experiment_file.checked(name, value)
    options = {"address": ray_address} if engine == "ray" else {}
    return Request(experiment, output, overrides, experiment_file.parse_assignments(only, "--only"), engine, options)


def show_plan(asked: Request, console: Console) -> None:
    """Print the cells of a sweep and what is there already."""
    from layerprof.report.look import Column, Look

    steps = conduct.dry_run(
        asked.experiment,
        output=asked.output,
        engine=asked.engine,
        overrides=asked.overrides,
        only=asked.only,
        **asked.options,
    )
    look = Look.of(console)
    states = [
        f"cannot run: {step.who.reason}"
        if isinstance(step.who, Refusal)
        else f"cached: {step.before.status.value}"
        if step.before
        else "to measure"
        for step in steps
    ]
    names = ("dataset", "batch_size", "image_size", "max_input_len", "optimization", "device", "dtype", "samples")
    who = [step.cell.choices if isinstance(step.who, Refusal) else step.who.choices for step in steps]
    columns = [
        Column("cell", [look.text(step.key[:8]) for step in steps], 0, "left"),
        Column("model", [look.text(choices.get("model", "auto")) for choices in who], 2, "left"),
    ]
    columns += [Column(name, [look.text(choices.get(name, "-")) for choices in who], 1) for name in names]
    columns += [
        Column("tables", [look.text(", ".join(step.cell.points)) for step in steps], 3, "left", wraps=True),
        Column("state", [look.text(state) for state in states], 0, "left", wraps=True),
    ]
    console.print(look.table(columns), highlight=False)
    left = sum(state == "to measure" for state in states)
    console.print(look.text(f"{len(steps)} cells, {left} to measure."), highlight=False)


def carry_out(
    asked: Request,
    resume: bool,
    retry: bool,
    timeout_s: float | None,
    console: Console,
    say: Callable[[str], None],
    quiet: bool,
) -> int:
    """Run a sweep, show it, and return how many cells failed."""
    if retry and not resume:
        raise RequestError("--retry works on a sweep that is there.", "Add --resume.")
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise RequestError(f"--timeout is {timeout_s:g}.", "Give seconds above 0.")
    done = conduct.sweep(
        asked.experiment,
        output=asked.output,
        resume=resume,
        retry=retry,
        engine=asked.engine,
        overrides=asked.overrides,
        only=asked.only,
        timeout_s=timeout_s,
        show=Lines(say) if quiet or not console.is_terminal else Bar(console),
        **asked.options,
    )
    if quiet:
        say(f"sweep: {done.folder}")
    else:
        from layerprof.report.sweep import terminal, view

        terminal.render(view.load(done.folder), console)
    return len(done.failed)
