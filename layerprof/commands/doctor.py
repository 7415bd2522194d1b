"""`layerprof doctor`: what this machine can measure."""

from __future__ import annotations

from layerprof.commands import printing
from layerprof.doctor import examine
from layerprof.report import doctor


def show(json: str | None) -> None:
    """Examine the machine and show it; with `json` in a file beside that, or on standard output alone for `-`."""
    result = examine.examine()
    if json != "-":  # on a GPU the examination takes half a minute: nobody should have to ask twice
        doctor.render(result, printing.console())
    if json is not None:
        printing.emit(examine.to_json(result), json)
