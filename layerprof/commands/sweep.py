"""`layerprof sweep`: what it was asked for, checked; its cells, shown; carried out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerprof.commands import printing
from layerprof.commands.cells import RUNNER
from layerprof.errors import RequestError
from layerprof.report.sweep.progress import Bar, Lines
from layerprof.settings import unknown_choice
from layerprof.sweep import choices, conduct


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
    from layerprof.sweep.engines import choose

    if engine not in choose.NAMES:
        raise unknown_choice("engine", engine, choose.NAMES)
    given = choices.parse_assignments(assignments, "--set")
    overrides = {name: choices.typed(name, ",".join(values)) for name, values in given.items()}
    for name, value in named.items():
        if value is not None:
            overrides[name] = choices.typed(name, value) if name == "samples" else choices.checked(name, value)
    options = {"address": ray_address} if engine == "ray" else {}
    return Request(experiment, output, overrides, choices.parse_assignments(only, "--only"), engine, options)


def show_plan(asked: Request) -> None:
    """Print the cells of a sweep and what is there already. Raises RequestError."""
    from layerprof.report.sweep import plan

    steps = conduct.dry_run(
        asked.experiment,
        runner=RUNNER,
        output=asked.output,
        engine=asked.engine,
        overrides=asked.overrides,
        only=asked.only,
        **asked.options,
    )
    plan.render(steps, printing.console())


def carry_out(asked: Request, *, resume: bool, retry: bool, timeout_s: float | None, quiet: bool) -> int:
    """Run a sweep, show it, and return the exit code: 1 where a cell failed. Raises RequestError and RunFailedError."""
    if retry and not resume:
        raise RequestError("--retry works on a sweep that is there.", "Add --resume.")
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise RequestError(f"--timeout is {timeout_s:g}.", "Give seconds above 0.")
    console = printing.console(quiet)
    done = conduct.sweep(
        asked.experiment,
        runner=RUNNER,
        output=asked.output,
        resume=resume,
        retry=retry,
        engine=asked.engine,
        overrides=asked.overrides,
        only=asked.only,
        timeout_s=timeout_s,
        show=Lines(printing.say) if quiet or not console.is_terminal else Bar(console),
        **asked.options,
    )
    if quiet:
        printing.say(f"sweep: {done.folder}")
    else:
        from layerprof.report.sweep import overview, terminal

        terminal.render(overview.load(done.folder), console)
    return 1 if done.failed else 0
