"""The benchmark of memory against the number of samples: runs in processes of their own, a table, a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from paths import ROOT


def test_the_benchmark_measures_runs_of_their_own(tmp_path: Path) -> None:
    """One sample and two: peaks of processes that hold torch, a row for each, and bars as high as the peaks."""
    data, picture = tmp_path / "samples.json", tmp_path / "samples.svg"
    small = ["--samples", "2,1", "--image-size", "56", "--max-new-tokens", "1", "--instrumented", "1"]
    files = ["--json", str(data), "--picture", str(picture)]
    command = [sys.executable, str(ROOT / "experiments" / "samples.py"), *small, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(data.read_text())
    assert [run["samples"] for run in found["runs"]] == [1, 2]
    assert all(200 < run["peak_mb"] < 5000 for run in found["runs"])
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| 1 ", "| 2 "))]
    assert [row.split("|")[2].strip() for row in rows] == [f"{run['peak_mb']:,.0f} MB" for run in found["runs"]]
    bars = [one for one in ElementTree.parse(picture).iter() if one.tag.endswith("rect")]
    heights = [float(bar.attrib["height"]) for bar in bars]
    peaks = [run["peak_mb"] for run in found["runs"]]
    assert abs(heights[0] / heights[1] - peaks[0] / peaks[1]) < 0.01
