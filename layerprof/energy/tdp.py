"""The estimate where no energy counter is: a modelled figure with its formula and inputs, apart from measured ones."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from layerprof.records import EnergyEstimate

TDP_FORMULA = "joules = tdp_w * process_cpu_s / cpu_threads"
WATTS_FORMULA = "joules = assumed_w * wall_s"
REMEDY = "give the device's power under this load with --assume-watts W"


@dataclass(frozen=True, slots=True)
class Tdp:
    """Thermal design power in watts of a processor with so many hardware threads, and who says so."""

    watts: float
    threads: int
    source: str


@cache
def _known() -> tuple[tuple[str, Tdp], ...]:
    text = resources.files("layerprof.energy").joinpath("cpu_tdp.toml").read_text(encoding="utf-8")
    return tuple(
        (words, Tdp(float(watts), int(threads), maker["source"]))
        for maker in tomllib.loads(text).values()
        for words, (watts, threads) in maker["cpus"].items()
    )


def find_tdp(cpu: str) -> Tdp | None:
    """Return the TDP of a processor by the name the kernel gives it, None where it is unknown.

    Names match as whole words in any order of decoration: `AMD EPYC 7763 64-Core Processor`,
    `Intel(R) Xeon(R) Platinum 8480+`.
    """
    plain = re.sub(r"\((R|TM)\)|®|™", "", cpu)
    for words, tdp in _known():
        if re.search(rf"(?<![\w-]){re.escape(words)}(?![\w+-])", plain, re.IGNORECASE):
            return tdp
    return None


def estimate(
    cpu: str, process_cpu_s: float, wall_s: float, samples: int, assume_watts: float | None = None
) -> tuple[EnergyEstimate | None, str | None]:
    """Return the estimate of a run's energy, or None and why there is none.

    `process_cpu_s` is the CPU time the process used (seconds, all threads), `wall_s` how long the run took. Without
    `assume_watts` the processor's TDP is shared out to its hardware threads: all threads busy take the TDP, idle power
    counts for nothing. Published errors of such models reach 40 %.
    """
    if assume_watts is not None:
        assumed: dict[str, Any] = {"assumed_w": assume_watts, "wall_s": wall_s, "source": "--assume-watts"}
        return _estimate(assume_watts * wall_s, samples, WATTS_FORMULA, assumed), None
    tdp = find_tdp(cpu)
    if tdp is None:
        return None, f"no estimate: the design power of {cpu.strip() or 'this processor'!s} is not known; {REMEDY}"
    inputs = {
        "cpu": cpu,
        "tdp_w": tdp.watts,
        "tdp_source": tdp.source,
        "cpu_threads": tdp.threads,
        "process_cpu_s": process_cpu_s,
        "wall_s": wall_s,
    }
    return _estimate(tdp.watts * process_cpu_s / tdp.threads, samples, TDP_FORMULA, inputs), None


def _estimate(joules: float, samples: int, formula: str, inputs: dict[str, Any]) -> EnergyEstimate:
    return EnergyEstimate(joules=joules, per_sample=joules / max(1, samples), formula=formula, inputs=inputs)
