"""Golden outputs: what a report looked like when somebody last looked at it."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    """Compare with `golden/<name>`; run with LAYERPROF_OVERWRITE=1 to renew it, then look at the difference."""
    file = FOLDER / name
    shown = "".join(line.rstrip() + "\n" for line in text.splitlines())
    if os.environ.get("LAYERPROF_OVERWRITE") == "1":
        FOLDER.mkdir(exist_ok=True)
        file.write_text(shown, encoding="utf-8")
    assert file.is_file(), f"{file} is missing; make it with LAYERPROF_OVERWRITE=1 and look at it"
    golden = file.read_text(encoding="utf-8")
    difference = difflib.unified_diff(golden.splitlines(), shown.splitlines(), "golden", "now", lineterm="")
    assert shown == golden, "\n".join(difference)
