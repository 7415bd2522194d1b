"""Two sweeps side by side, cell by cell. Each pair of cells is compared as two runs are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerprof.runs import store
from layerprof.runs.changes import Comparisons
from layerprof.runs.compare import two
from layerprof.runs.sides import Side
from layerprof.sweep.folder import SweepFolder


def compare(before: str | Path, after: str | Path) -> Comparisons:
    """Compare two sweeps by their folders or their `sweep.json`. Raises RequestError for anything else.

    Cells are partners when they stand at the same point of a table of the same name.
    """
    paths = [Path(path).expanduser() for path in (before, after)]
    folders = [SweepFolder(path if path.is_dir() else path.parent) for path in paths]
    points = [_points(folder) for folder in folders]
    cells, alone, seen = [], [], set()
    for place in {**points[0], **points[1]}:
        keys = [found.get(place) for found in points]
        if tuple(keys) in seen:
            continue
        seen.add(tuple(keys))
        sides = [_side(folder, key) for folder, key in zip(folders, keys, strict=True)]
        if sides[0] and sides[1]:
            cells.append(two(sides[0], sides[1], place))
        else:
            alone.append(f"{place}: {_why_alone(folders, keys)}")
    return Comparisons(str(before), str(after), tuple(cells), tuple(alone))


def _points(folder: SweepFolder) -> dict[str, str]:
    """Return the keys of a sweep's cells by where they stand."""
    found: dict[str, str] = {}
    for cell in folder.record().cells:
        repeat = f" repeat={cell.repeat}" if cell.repeat else ""
        for table, places in cell.points.items():
            for values in places:
                where = " ".join(f"{name}={value}" for name, value in values.items())
                found[f"{table}: {where}{repeat}"] = cell.key
    return found


def _side(folder: SweepFolder, key: str | None) -> Side | None:
    if key is None or not (folder.cell_folder(key) / store.RUN_FILE).is_file():
        return None
    return Side.of(folder.cell_folder(key))


def _why_alone(folders: Sequence[SweepFolder], keys: Sequence[str | None]) -> str:
    told = []
    for name, folder, key in zip(("first", "second"), folders, keys, strict=True):
        if key is None:
            told.append(f"not in the {name} sweep")
            continue
        outcome = folder.outcome(key)
        if outcome is None:
            told.append(f"not measured in the {name}")
        elif outcome.reason:
            told.append(f"{outcome.status.value} in the {name} ({outcome.reason})")
    return ", ".join(told)
