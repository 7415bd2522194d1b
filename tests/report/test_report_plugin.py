"""The TensorBoard tab's server side: which runs it lists, and what it hands to the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_run import sample_run
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client, TestResponse

from layerprof.report.payload import payload
from layerprof.report.plugin import LayersPlugin
from layerprof.runs import store
from layerprof.sweep.cells import PlannedCell, PlannedTable, SweepRecord


def plugin(folder: Path) -> LayersPlugin:
    """Return the plugin as TensorBoard makes it for a log folder."""
    return LayersPlugin(TBContext(logdir=str(folder)))


def ask(folder: Path, address: str) -> TestResponse:
    """Return the plugin's answer to an address below its own."""
    apps = plugin(folder).get_plugin_apps()
    return Client(apps["/" + address.partition("?")[0]]).get("/" + address)


def data(answer: TestResponse) -> Any:
    """Return an answer's JSON."""
    assert answer.content_type.startswith("application/json")
    return json.loads(answer.get_data())


def test_runs_are_listed_by_their_path_below_the_log_folder(tmp_path: Path) -> None:
    """The folder itself, runs in it, and cells of sweeps in it."""
    store.save(sample_run(), tmp_path / "one")
    store.save(sample_run(), tmp_path / "sweep" / "cells" / "abc")
    assert [run["name"] for run in data(ask(tmp_path, "runs"))] == ["one", "sweep/cells/abc"]
    assert data(ask(tmp_path / "one", "runs")) == [{"name": ".", "label": "."}]


def test_cells_of_a_sweep_are_called_what_they_are(tmp_path: Path) -> None:
    """Their folders are named by hashes; the page shows table and settings, in the order of the sweep."""
    points: dict[str, tuple[dict[str, Any], ...]] = {"sizes": ({"image_size": 448},)}
    cells = [
        PlannedCell(key="b", label="image_size=448", choices={}, repeat=0, points=points),
        PlannedCell(key="a", label="repeat=1", choices={}, repeat=1, points={}),
    ]
    table = PlannedTable(name="sizes", title="Image size", axes={})
    record = SweepRecord(created="", name="mine", title="Mine", tables=(table,), cells=tuple(cells))
    for key in "abc":
        store.save(sample_run(), tmp_path / "cells" / key)
    (tmp_path / "sweep.json").write_text(record.model_dump_json())
    assert data(ask(tmp_path, "runs")) == [
        {"name": "cells/c", "label": "cells/c"},
        {"name": "cells/b", "label": "Image size: image_size=448"},
        {"name": "cells/a", "label": "mine: repeat=1"},
    ]
    (tmp_path / "sweep.json").write_text("{")
    assert [run["label"] for run in data(ask(tmp_path, "runs"))] == ["cells/a", "cells/b", "cells/c"]


def test_the_tab_is_active_only_where_there_is_a_run(tmp_path: Path) -> None:
    """An empty log folder shows no tab, a folder that appears later is no error."""
    assert not plugin(tmp_path).is_active()
    assert not plugin(tmp_path / "later").is_active()
    store.save(sample_run(), tmp_path / "one")
    assert plugin(tmp_path).is_active()


def test_a_run_is_handed_over_as_the_pages_data(tmp_path: Path) -> None:
    """The same data as the HTML report embeds."""
    saved = store.save(sample_run(), tmp_path / "one")
    answer = data(ask(tmp_path, "run?name=one"))
    assert answer == json.loads(json.dumps(payload(saved)))
    decode = next(row for row in answer["rows"] if row["label"] == "layers.1" and row["phase"] == "decode")
    assert (decode["median_s"], decode["flops"], decode["share"]) == (0.006, 1e8, 0.24)


@pytest.mark.parametrize("name", ["", "two", "../one", "/etc", "one/../one"])
def test_only_listed_runs_are_read(name: str, tmp_path: Path) -> None:
    """No other path of the machine can be asked for."""
    store.save(sample_run(), tmp_path / "logs" / "one")
    store.save(sample_run(), tmp_path / "one")
    answer = ask(tmp_path / "logs", f"run?name={name}")
    assert answer.status_code == 404
    assert "error" in data(answer)


def test_a_broken_run_is_an_error_that_the_page_can_show(tmp_path: Path) -> None:
    """One sentence instead of a stack trace."""
    store.save(sample_run(), tmp_path / "one")
    (tmp_path / "one" / "run.json").write_text("{")
    answer = ask(tmp_path, "run?name=one")
    assert answer.status_code == 500
    assert "not JSON" in data(answer)["error"]


@pytest.mark.parametrize(
    ("name", "kind", "holds"),
    [
        ("index.js", "application/javascript", b"export async function render"),
        ("charts.js", "application/javascript", b"Layerprof"),
        ("plotly.js", "application/javascript", b"Plotly"),
        ("page.css", "text/css", b"--ink"),
    ],
)
def test_the_page_is_served_from_the_package(name: str, kind: str, holds: bytes, tmp_path: Path) -> None:
    """Every part of the page comes from this machine, under the type that browsers insist on."""
    answer = ask(tmp_path, name)
    assert answer.content_type.startswith(kind)
    assert holds in answer.get_data()


def test_the_tab_is_called_layers(tmp_path: Path) -> None:
    """And its module is one of the addresses that it serves."""
    front = plugin(tmp_path).frontend_metadata()
    assert front.tab_name == "Layers"
    assert front.es_module_path in plugin(tmp_path).get_plugin_apps()
