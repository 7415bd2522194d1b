"""The benchmarks beside other tools: the formula that counters are judged by, and the page that their tables go to."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import closed_form
import pytest
import traces_graphs
from scenario import Scenario

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


def read(script: Any, works: Sequence[tuple[tuple[str, ...], float]]) -> Any:
    """Return the shares of works whose inside is their sum."""
    inside = {name: sum(us for names, us in works if name in names) for each, _ in works for name in each}
    return script("graphs").shares(script("graphs").Read(works, inside))


def test_names_of_layers_are_found_alike_for_every_tool(script: Any) -> None:
    """Layers are the outermost names that differ by a number; what the whole model's name alone covers is nowhere."""
    works = [
        (("Model_0", "Embed_0"), 4.0),
        (("Model_0", "Block_0", "Linear_0"), 30.0),
        (("Model_0", "Block_0"), 6.0),
        (("Model_0", "Block_1", "Linear_1"), 40.0),
        (("Model_0", "Linear_2"), 5.0),
        (("Model_0",), 10.0),
        ((), 5.0),
    ]
    found = read(script, works)
    assert (found.layers, found.in_layers, found.named, found.nowhere) == ((36, 40), 0.76, 0.09, 0.15)
    assert script("graphs").by_class(works) == {"Embed": 4, "Linear": 75, "Block": 6, "Model": 10, "none": 5}


def test_a_compiled_model_has_no_layers_by_name(script: Any) -> None:
    """One module for all kernels names nothing, however deep it stands in itself; layers without a module do."""
    compiled = [(("Causal_0", "GraphModule_0"), 90.0), (("Causal_0", "GraphModule_0", "GraphModule_0"), 10.0)]
    assert read(script, compiled).nowhere == 1
    inferred = [((f"layer {i} (inferred)",), 1.0 + i) for i in range(12)] + [(("head",), 8.0), (("tail",), 14.0)]
    found = read(script, inferred)
    assert (found.layers, found.in_layers, found.named) == (tuple(range(1, 13)), 0.78, 0.22)


def test_rows_of_a_captured_graph_are_read_with_what_is_above_them(script: Any, tmp_path: Path) -> None:
    """Three layers of two kernels each, by their capture: 3 + 4 + ... + 8 us, all of it in layers."""
    nodes = traces_graphs.layered(3, "gemm", "act")
    captured, replayed = Scenario(), Scenario()
    traces_graphs.capture(captured, nodes)
    traces_graphs.replay(replayed, nodes, 100)
    capture, replay = (traces_graphs.written(s, tmp_path / name) for s, name in ((captured, "c"), (replayed, "r")))
    found = script("graphs").shares(script("graphs").layerprof(replay, capture))
    assert found.layers == (7, 11, 15)
    assert found.in_layers == 1


def test_a_pair_is_a_replay_with_its_capture(script: Any, tmp_path: Path) -> None:
    """A replay alone is left out; without a pair the script ends well and writes no table."""
    for name in ("a.replay", "a.capture", "b.replay", "c.capture"):
        (tmp_path / f"{name}.json.gz").touch()
    assert list(script("graphs").pairs(tmp_path)) == ["a"]
    assert script("graphs").pairs(tmp_path / "nowhere") == {}


def test_arrows_tie_each_launch_to_the_first_that_it_ran(script: Any) -> None:
    """One start and one end a correlation id; events without times or ids have none."""
    launch = {"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "pid": 1, "tid": 2, "ts": 3, "dur": 1}
    kernel = {"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": 9, "dur": 1}
    link = {"args": {"correlation": 5}}
    events = [launch | link, kernel | link, kernel | link | {"ts": 10}, kernel | {"args": {}}, {"ph": "M", **link}]
    start, end = script("attribution").arrows(events)
    assert (start["ph"], start["id"], start["tid"], start["ts"]) == ("s", 5, 2, 3)
    assert (end["ph"], end["id"], end["tid"], end["ts"]) == ("f", 5, 7, 9)


def test_a_ratio_is_of_one_round(script: Any) -> None:
    """Medians over rounds, and ratios within each, so that a slow moment of the machine weighs on both sides."""
    ours = [{"cpu_s": s, "more_memory_bytes": 100} for s in (1.0, 2.0, 4.0)]
    peer = [{"cpu_s": s, "more_memory_bytes": 1000} for s in (5.0, 10.0, 20.0)]
    cells = script("attribution").cost_cells(peer, ours, 500)
    assert cells == ("10.0 s", "0 MB", "2.0", "5.0", "10.0")
    assert script("attribution").cost_cells([{"error": "no"}], ours, 500)[:2] == ("did not run", "no")


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
