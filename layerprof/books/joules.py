"""From what the energy pass read to the joules of a run end to end, and to the facts in its files."""

from __future__ import annotations

from collections import Counter
from typing import Any

from layerprof.books.evidence import Asked, Read
from layerprof.books.totals import no_energy, output_tokens
from layerprof.energy import tdp
from layerprof.energy.amount import joules_of
from layerprof.energy.measured import EnergyData
from layerprof.energy.share import totals as whole_totals
from layerprof.machine.environment import cpu_name
from layerprof.records import Energy, EnergyEstimate

ENERGY_FILE = "energy.json"


def end_to_end(data: EnergyData | None) -> float | None:
    """Return the joules of one walk, from the window that knows nothing of phases; None where there are none."""
    return joules_of(data.whole.reading.energy) if data else None


def totals(read: Read) -> Energy:
    """Return the joules of one walk over the instrumented samples: how they were obtained, or why there are none."""
    data = read.energy
    if data is None:
        return no_energy(why_none(read))
    host = data.whole.host
    record = whole_totals(data.whole.reading, read.instrumented, output_tokens(read.part), host, data.phases())
    more = {
        "active_j": data.whole.active_j,
        "by_phase_reason": None if record.joules is None else data.phases_reason(),
        "host_reason": host.reason if host else data.host_reason,
    }
    return record.model_copy(update=more)


def why_none(read: Read) -> str:
    """Return why there are no joules, where the energy pass gave none."""
    return read.reasons.get("energy", "the energy pass did not run")


def estimate(asked: Asked, read: Read) -> tuple[EnergyEstimate | None, str | None]:
    """Return the modelled joules of the bare walk over the instrumented samples, where nothing measures them.

    None with the reason, if there is one. Never part of a measured sum.
    """
    settings = asked.settings
    if read.energy is not None or settings.energy == "off":
        return None, None
    if asked.device != "cpu" and settings.assume_watts is None:
        return None, "no estimate without a sensor; give --assume-watts W"
    cpu_s = sum(read.bare_cpu_s[: len(read.part)])
    return tdp.estimate(cpu_name(), cpu_s, read.part_s, read.instrumented, settings.assume_watts)


def facts(data: EnergyData | None) -> dict[str, Any] | None:
    """Return the instruments and the replay for `run.json`, without what has a line a row; None without a reading."""
    if data is None:
        return None
    found: dict[str, Any] = {"instrument": dict(data.instrument)}
    if data.replayed is not None:
        replayed = data.replayed.facts()
        rows = replayed.pop("rows")
        windows = replayed["instrument"].pop("windows", {})
        found["replay"] = replayed | {
            "captured": data.captured.facts() if data.captured else None,
            "rows": len(rows),
            "rows_without_figure": sum(row["joules"] is None for row in rows),
            "windows": len(windows),
            "windows_flagged": dict(Counter(flag for window in windows.values() for flag in window["flags"])),
            "file": ENERGY_FILE,
        }
    return found


def details(data: EnergyData | None) -> dict[str, Any] | None:
    """Return every replayed row and window, for the file beside the run; None where nothing was replayed."""
    if data is None or data.replayed is None:
        return None
    replayed = data.replayed.facts() | {"captured": data.captured.facts() if data.captured else None}
    return {"format": 1, "instrument": dict(data.instrument), "replay": replayed}
