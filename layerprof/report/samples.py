"""Of how many samples a figure is: answers and times are of all, what instruments give of those that they walked."""

from __future__ import annotations

from layerprof.records import Run
from layerprof.report import units


def part(run: Run) -> str:
    """Return the part of the samples that the instruments walked, e.g. `64 of 5 000 samples`; empty where it is all."""
    whole = run.walked == run.samples
    return "" if whole else f"{units.count(run.walked)} of {units.many(run.samples, 'sample')}"


def of_part(run: Run) -> str:
    """Return the same as a note, e.g. `of 64 of 5 000 samples`."""
    walked = part(run)
    return f"of {walked}" if walked else ""


def title(run: Run, name: str) -> str:
    """Return the title of what instruments gave, e.g. `Layers of 64 of 5 000 samples`."""
    return f"{name} {of_part(run)}".strip()
