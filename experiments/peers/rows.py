"""What the benchmarks share: the machine and versions that a figure belongs to, a table, and its JSON.

`save` writes every table that was shown, so that page.py can put them into docs/peers.md as they were printed.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHOWN: dict[str, dict[str, Any]] = {}
"""Tables of this process by key."""


def machine(*packages: str) -> dict[str, Any]:
    """Return processor, cores, load, Python and the versions of the packages (None where not installed)."""
    versions: dict[str, str | None] = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "gpu": _gpu(),
        "versions": versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def show(key: str, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], where: dict[str, Any]) -> None:
    """Print a Markdown table with the machine below it, and keep it for `save` under its key."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    SHOWN[key] = {"title": title, "header": cells[0], "rows": cells[1:]}
    print(f"## {title}\n")
    print(f"{markdown(cells)}\n\n{caption(where)}\n")


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Return a table; the first row is its header."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def caption(where: dict[str, Any]) -> str:
    """Return the machine and the versions in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    return f"{where['gpu'] or where['processor']}, {where['cores']} cores, load {where['load_average']}, {versions}"


def save(path: Path | None, data: dict[str, Any]) -> None:
    """Write the figures and the shown tables as JSON, when a path is given."""
    if path is not None:
        arguments = [x for x, before in zip(sys.argv[1:], sys.argv, strict=False) if "--json" not in (x, before)]
        command = " ".join(["python", str(Path(sys.argv[0]).resolve().relative_to(ROOT)), *arguments])
        made = {"date": time.strftime("%Y-%m-%d"), "command": command}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**made, **data, "tables": SHOWN}, indent=2) + "\n")
        print(f"Wrote {path}")
