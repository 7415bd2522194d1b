"""The benchmarks beside other tools: the formula that counters are judged by, and the page that their tables go to."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import closed_form
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script of experiments/peers by name."""
    monkeypatch.syspath_prepend(ROOT / "experiments" / "peers")
    return importlib.import_module


def test_two_formulas_derived_apart_agree(script: Any) -> None:
    """The formula in the benchmark and the tests' own give every layer and all of decode the same FLOPs."""
    config = json.loads((ROOT / "layerprof/demo/model/config.json").read_text())
    side, positions, tokens = 16, 104, 8
    written = script("flops").truth(config, side, positions, tokens)
    closed = closed_form.qwen2_5_vl(config, [(1, side, side)], 1, positions, tokens)
    assert [written.layers[f"model.visual.blocks.{i}"] for i in range(4)] == closed.vision_blocks
    assert [written.layers[f"model.language_model.layers.{i}"] for i in range(6)] == closed.prefill_layers
    assert (written.vision, written.layers["lm_head"]) == (closed.vision, positions * closed.lm_head)
    assert written.decode == closed.decode


def test_an_image_of_cut_windows_is_refused(script: Any) -> None:
    """The formula says so where its windows would not be equal, and gives no wrong figure."""
    config = json.loads((ROOT / "layerprof/demo/model/config.json").read_text())
    with pytest.raises(ValueError, match="whole windows"):
        script("flops").truth(config, 12, 104, 1)


def test_tables_go_between_their_markers_only(script: Any, tmp_path: Path) -> None:
    """A table replaces the older one of its key, the CPU's before a card's; all other words stay."""
    machine = {"gpu": None, "processor": "P", "cores": 2, "load_average": 0.1, "versions": {"torch": "2", "gone": None}}
    for device, cell in (("a-card", "second"), ("cpu", "first")):
        folder = tmp_path / device / "peers"
        folder.mkdir(parents=True)
        table = {"title": "T", "header": ["a"], "rows": [[cell]]}
        run = {"date": "2026-01-02", "command": "python x.py", "machine": machine, "tables": {"one": table}}
        (folder / "x.json").write_text(json.dumps(run))
    page = script("page")
    before = "words\n<!-- table: one -->\nold\n<!-- end -->\nmore\n<!-- table: two -->\nkept\n<!-- end -->\n"
    after = page.fill(before, page.tables(tmp_path))
    assert after.startswith("words\n<!-- table: one -->\n**T**")
    assert after.endswith("<!-- end -->\nmore\n<!-- table: two -->\nkept\n<!-- end -->\n")
    assert "old" not in after
    assert after.index("| first") < after.index("| second")
    assert "2026-01-02, P, 2 cores, load 0.1, torch 2. `python x.py`" in after
    assert page.fill(after, page.tables(tmp_path)) == after


def test_every_marker_of_the_page_is_a_table_of_a_script() -> None:
    """No section of docs/peers.md waits for a table that no benchmark makes."""
    keys = set(re.findall(r"<!-- table: ([\w-]+) -->", (ROOT / "docs/peers.md").read_text()))
    source = "".join(path.read_text() for path in (ROOT / "experiments/peers").glob("*.py"))
    shown = set(re.findall(r'show\(\s*f?"([\w-]+)(?:\{attention\})?"', source))
    assert shown == {key.removesuffix("eager").removesuffix("sdpa") for key in keys}
