"""`layerprof estimate`: figures of a model that is never loaded; bounds on what a change saves of a measured run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerprof.commands import printing
from layerprof.errors import RequestError
from layerprof.report import estimate as shown

OF_A_RUN = ("layers", "speedup", "quantization", "quantization_skip")
"""Options that say what changes in a measured run, besides `--json`."""
ONLY_OF_A_RUN = ("layers", "speedup")


def show(model: str, json: str | None, given: Sequence[str], **asked: Any) -> None:
    """Estimate, and show it or write it as JSON. `given` are the options on the command line. Raises RequestError."""
    from layerprof.estimate import estimate

    for name in given:
        if name in ONLY_OF_A_RUN:
            raise RequestError(
                f"--{name.replace('_', '-')} is about a measured run, and none is given.",
                "Give its folder with --from, or leave it out.",
            )
    result = estimate.estimate(model, **asked)
    if json is None:
        shown.render(result, printing.console())
    else:
        printing.emit(result.to_json(), json)


@dataclass(frozen=True, slots=True)
class Asked:
    """What changes in a run, as it stands on the command line."""

    layers: str
    quantization: str
    quantization_skip: str | None
    speedup: float | None


def show_what_if(path: Path, json: str | None, given: Sequence[str], asked: Asked) -> None:
    """Tell what a change could save of a run at best. Raises RequestError, also for options of other estimates."""
    from layerprof.estimate.what_if import Change, what_if
    from layerprof.report.what_if import render
    from layerprof.runs import store

    for name in given:
        if name not in (*OF_A_RUN, "run", "json"):
            option = "--" + name.replace("_", "-")
            raise RequestError(
                f"{option} describes an estimate without a run, and --from names one.",
                f"Leave out {option}, or --from.",
            )
    if not set(given) & set(OF_A_RUN):
        raise RequestError(
            "What changes in the run is not said.",
            "Give --layers (they cost nothing), with --speedup or --quantization, such as --quantization int4.",
        )
    change = Change(
        None if asked.quantization == "none" else asked.quantization, asked.quantization_skip, asked.speedup
    )
    answer = what_if(store.load(path), asked.layers, change)
    if json is None:
        render(answer, printing.console())
    else:
        printing.emit(answer.to_json(), json)
