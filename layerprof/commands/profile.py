"""`layerprof profile`: measure, and show the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from layerprof import settings
from layerprof.commands import api, printing
from layerprof.measure import progress

if TYPE_CHECKING:
    from rich.console import Console

    from layerprof.measure.progress import Progress
    from layerprof.records import Run

INTERRUPTED = 130


def carry_out(hooks: Sequence[str] | None, quiet: bool, **chosen: Any) -> int:
    """Measure what the settings say, show it, and return the exit code. Raises as `profile()` does."""
    console = printing.console(quiet)
    run = api.profile(settings.build(**chosen, hooks=tuple(hooks or ())), progress=_watcher(console, quiet))
    _show(run, console, quiet)
    return INTERRUPTED if run.status == "interrupted" else 0


def _watcher(console: Console, quiet: bool) -> Progress:
    """Return who shows how the run goes: bars on a terminal, else lines."""
    return progress.Plain(printing.say) if quiet or not console.is_terminal else progress.Bars(console)


def _show(run: Run, console: Console, quiet: bool) -> None:
    from layerprof.report.formats import terminal

    if quiet:
        terminal.render_plain(run, printing.say)
    else:
        terminal.render(run, console)
    if "cross_check" in run.passes:
        from layerprof.flops.crosscheck import CrossCheck
        from layerprof.report import crosscheck

        crosscheck.render(CrossCheck.model_validate(run.passes["cross_check"]), console)
