"""What TensorBoard is pointed at: the runs below a folder, each with its event file."""

from __future__ import annotations

from pathlib import Path

from layerprof.errors import LayerprofError, RequestError
from layerprof.report.formats import tensorboard
from layerprof.runs.store import RUN_FILE, load


def ensure(folder: str | Path) -> str | None:
    """Write a run's event file when it has none; return in one sentence why it could not be, None when all is well.

    One broken run, or a read-only disk, keeps nobody from looking at the rest.
    """
    place = Path(folder)
    if any(place.glob(f"events.out.tfevents.*{tensorboard.SUFFIX}")):
        return None
    try:
        tensorboard.write(load(place), place)
    except LayerprofError as error:
        return f"{place} is left out: {error.problem}"
    except OSError as error:
        return f"{place} cannot be written to ({error.strerror or error}): no scalars, but the tab Layers works."
    return None


def arguments(path: str | Path, port: int = 6006) -> list[str]:
    """Return TensorBoard's arguments for a run's folder (or its run.json), or a folder of runs.

    Raises RequestError when there is no run in it.
    """
    place = Path(path).expanduser()
    place = place.parent if place.is_file() and place.name == RUN_FILE else place
    if not run_folders(place):
        raise RequestError(
            f"There is no run in {place}.",
            "Give the folder that `layerprof profile` printed at its end, or its parent.",
        )
    return ["--logdir", str(place.resolve()), "--port", str(port)]


def run_folders(place: Path) -> list[Path]:
    """Return the folders with a run.json at or below a place, itself first; three levels reach the cells of sweeps."""
    found = [place] if (place / RUN_FILE).is_file() else []
    return found + sorted(file.parent for depth in ("*", "*/*", "*/*/*") for file in place.glob(f"{depth}/{RUN_FILE}"))
