"""The table of formats and families: what the script measures, and that the page shows what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

SCRIPT = ROOT / "experiments" / "formats.py"
RESULTS = ROOT / "experiments" / "results" / "cpu" / "formats.json"


def test_a_format_has_all_the_work_of_the_model_as_it_was(tmp_path: Path) -> None:
    """Of a ViT in int8: as many FLOPs as in fp32, and its blocks read a byte and not four for each weight."""
    pytest.importorskip("torchao")
    data, page = tmp_path / "formats.json", tmp_path / "page.md"
    page.write_text(
        "before\n<!-- table: formats -->\n<!-- end -->\n<!-- table: families -->\nold\n<!-- end -->\nafter\n"
    )
    options = ["--families", "vit", "--packages", "torchao", "--json", str(data), "--docs", str(page)]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = [cell for cell in json.loads(data.read_text())["cells"] if cell["family"] == "vit"]
    first, stored = cells[0], next(cell for cell in cells if cell["format"] == "int8, weight only")
    assert first["flops"] == stored["flops"] > 0
    assert stored["weights_dtype"].startswith("int8")
    assert 0.25 <= stored["weights"] / first["weights"] < 0.6  # scales, biases and norms are as they were
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| vit " in text


def test_the_page_shows_what_was_measured() -> None:
    """Every row of the committed tables stands in docs/models.md."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    shown = {" ".join(line.split()) for line in page.splitlines() if line.startswith("|")}
    for table in json.loads(RESULTS.read_text())["tables"].values():
        for row in table["rows"]:
            assert " ".join(("| " + " | ".join(row) + " |").split()) in shown
