"""What a person sees in a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from layerprof.records import Run
from layerprof.report.formats import terminal


def shown(run: Run, width: int = 80, *, tty: bool = True, every_layer: bool = False) -> str:
    """Return what a console of that width shows, without colours."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=tty, color_system=None, legacy_windows=False)
    console._environ = {}
    terminal.render(run, console, every_layer=every_layer)
    return out.getvalue()
