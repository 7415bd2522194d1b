"""The rewritten trace, judged by torch-tb-profiler's own parser: real layer names, nested, with the right times."""

from __future__ import annotations

import gzip
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import families
import pytest
import torch
import traces_synthetic as synthetic
from layerprof.hooks.kernels import KernelsHook
from scenario import MLP, A, B, Scenario

from layerprof.errors import TraceError
from layerprof.layers.find import find_layers
from layerprof.trace.attribute import attribute
from layerprof.trace.file import TraceFile, write_chrome
from layerprof.trace.for_tensorboard import rewrite_for_tensorboard

plugin = pytest.importorskip("torch_tb_profiler.profiler.data")


@dataclass(frozen=True)
class Seen:
    """A row of the plugin's Module view, times in microseconds."""

    name: str
    calls: int
    host: float
    device: float
    device_self: float
    inside: tuple[Seen, ...] = ()


def module_view(path: Path) -> tuple[Seen, ...]:
    """Return the Module view that the plugin makes of a file."""
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    data = plugin.RunProfileData.parse("worker", "1", str(path), str(path.parent))
    view = RunGenerator("worker", "1", data).generate_run_profile().get_module_view()
    return _rows(view["data"]) if view else ()


def _rows(rows: Sequence[dict[str, Any]]) -> tuple[Seen, ...]:
    return tuple(
        Seen(
            r["name"],
            r["occurences"],
            r["host_duration"],
            r["device_duration"],
            r["self_device_duration"],
            _rows(r["children"]),
        )
        for r in rows
    )


def rewritten(scenario: Scenario, folder: Path, **options: Any) -> Path:
    """Write a scenario as a trace and rewrite it."""
    events = [e for e in scenario.events if e.get("ts") == e.get("ts")]  # JSON has no NaN
    return rewrite_for_tensorboard(write_chrome(events, folder / "plain.json"), folder / "tb", "w.1", **options)


def on_gpu() -> Scenario:
    """Two layers, one with an MLP inside, called twice; operators with their external ids as torch gives them."""
    s = Scenario()
    external = 0
    for call, start in enumerate((0, 10_000)):
        s.layer("model.layers.0", start, 2000, call=call)
        s.layer("model.layers.0.mlp", start + 1000, 900, call=call)
        s.layer("model.layers.1", start + 3000, 1000, call=call)
        launches = [(100, 300, A), (1100, 700, MLP), (1500, 500, MLP)]
        for at, dur, label in [*launches, (3100, 950, B)]:
            external += 1
            s.add("cpu_op", "aten::linear", start + at - 20, 80, **{"External id": 1000 + external})
            s.kernel(start + at, start + 5000 + at, dur, label)
            for event in s.events[-2:]:
                event["args"] |= {"External id": 1000 + external, "device": 0, "stream": 7}
    return s


class TestModuleView:
    """What a user of TensorBoard sees."""

    def test_layers_have_their_names_nesting_calls_and_device_times(self, tmp_path: Path) -> None:
        """Real names, a submodule under its layer, inclusive and self device times as built, over all calls."""
        assert module_view(rewritten(on_gpu(), tmp_path)) == (
            Seen("model.layers.0", 2, 4000, 3000, 600, (Seen("model.layers.0.mlp", 2, 1800, 2400, 2400),)),
            Seen("model.layers.1", 2, 2000, 1900, 1900),
        )

    def test_without_the_rewrite_there_is_nothing_to_see(self, tmp_path: Path) -> None:
        """The reason for all this: the plugin makes no module of the trace as recorded."""
        assert module_view(write_chrome(on_gpu().events, tmp_path / "plain.json")) == ()

    @pytest.mark.parametrize(
        "name",
        # Of modules with the same times the plugin takes the one that the file has last for the inner one, and it knows
        # no captures.
        sorted(
            set(synthetic.SCENARIOS)
            - {"crossing_ranges", "equal_times", "graph_inside_a_layer", "captured_in_the_trace"}
            - set(synthetic.WITHOUT_GPU_WORK)
        ),
    )
    def test_device_times_are_those_of_the_construction(self, name: str, tmp_path: Path) -> None:
        """Launches without an operator, by the driver, on several threads: self device time is the layer's."""
        scenario = synthetic.SCENARIOS[name]()
        flat: dict[str, float] = {}

        def flatten(rows: Sequence[Seen]) -> None:
            for row in rows:
                flat[row.name] = row.device_self
                flatten(row.inside)

        flatten(module_view(rewritten(scenario, tmp_path)))
        assert {name: us for name, us in flat.items() if us} == pytest.approx(
            {name: us for (name, _), us in scenario.self_us.items() if us}
        )

    def test_only_the_layers_asked_for_become_modules(self, tmp_path: Path) -> None:
        """A submodule that was not asked for leaves its time to its layer."""
        view = module_view(rewritten(on_gpu(), tmp_path, layers=["model.layers.0", "model.layers.1"]))
        assert view == (Seen("model.layers.0", 2, 4000, 3000, 3000), Seen("model.layers.1", 2, 2000, 1900, 1900))

    def test_a_layer_with_other_parts_in_another_call_is_listed_once(self, tmp_path: Path) -> None:
        """The hierarchy is that of the first call, so that no name stands twice."""
        s = Scenario()
        s.layer("a", 0, 100, call=0)
        s.layer("a.b", 10, 20, call=0)
        s.layer("a", 200, 100, call=1)
        s.layer("a.c", 210, 20, call=0)
        view = module_view(rewritten(s, tmp_path))
        assert [row.name for row in view] == ["a"]
        assert sorted(row.name for row in view[0].inside) == ["a.b", "a.c"]

    def test_no_warning_about_crossing_ranges(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The plugin throws crossing intervals away; the rewrite makes none."""
        with caplog.at_level(logging.WARNING):
            for name in ("nested_ranges", "triton_launches", "late_kernels"):
                module_view(rewritten(synthetic.SCENARIOS[name](), tmp_path))
        assert "should not intersect" not in caplog.text

    def test_the_plugin_lists_the_file_as_a_run(self, tmp_path: Path) -> None:
        """By its name the plugin tells worker and span."""
        from torch_tb_profiler.consts import WORKER_PATTERN

        path = rewrite_for_tensorboard(write_chrome(on_gpu().events, tmp_path / "t.json"), tmp_path, "layers.1234")
        match = WORKER_PATTERN.match(path.name)
        assert match is not None
        assert match.groups() == ("layers", ".1234")


class TestRewrite:
    """What must not change."""

    @pytest.mark.parametrize(
        "name", sorted(set(synthetic.SCENARIOS) - {"crossing_ranges", "recorded_with_record_function"})
    )
    def test_attribution_of_the_rewritten_trace_is_the_same(self, name: str, tmp_path: Path) -> None:
        """Layers, phases, calls, buckets and totals survive; operators made up for bare launches weigh nothing.

        Calls that cross are the exception: the plugin nests by containment, so the rewrite cuts them where they cross.
        """
        scenario = synthetic.SCENARIOS[name]()
        path = rewritten(scenario, tmp_path)
        before, after = attribute(tmp_path / "plain.json"), attribute(path)
        assert after.rows == before.rows
        assert (after.buckets_ns, after.total_ns, after.device) == (
            before.buckets_ns,
            before.total_ns,
            before.device,
        )

    def test_metadata_stays(self, tmp_path: Path) -> None:
        """Device properties are what the plugin's GPU panel reads."""
        plain = write_chrome(on_gpu().events, tmp_path / "t.json", {"deviceProperties": [{"id": 0, "name": "H200"}]})
        trace = TraceFile(rewrite_for_tensorboard(plain, tmp_path, "w.1"))
        assert sum(len(piece) for piece in trace) > 0
        assert trace.metadata["deviceProperties"] == [{"id": 0, "name": "H200"}]

    def test_a_trace_that_cannot_be_read_leaves_no_file(self, tmp_path: Path) -> None:
        """The error is the reader's; nothing half-written stays."""
        broken = tmp_path / "t.json"
        broken.write_text('{"traceEvents": [{"ph": "X", "name": "a"')
        with pytest.raises(TraceError, match="truncated"):
            rewrite_for_tensorboard(broken, tmp_path / "tb", "w.1")
        assert not (tmp_path / "tb").exists()


class TestLiveModel:
    """A tiny Qwen2.5-VL, recorded on this machine."""

    def test_every_layer_of_a_real_run_is_in_the_view(self, tmp_path: Path) -> None:
        """Names as in named_modules(), calls as counted, host times that fit into the recording."""
        family = families.build("qwen2_5_vl")
        layers = [x for x in find_layers(family.model) if x.kind in ("vision_block", "decoder_layer", "lm_head")]
        hook = KernelsHook(family.model, layers, folder=tmp_path)
        with hook, hook.batch(0):
            families.run(family, new_tokens=4)
        (path,) = tmp_path.glob("trace/*.pt.trace.json.gz")
        view = {row.name: row for row in module_view(path)}
        assert set(view) == {layer.name for layer in layers}
        assert {view[x.name].calls for x in layers if x.kind == "decoder_layer"} == {4}
        assert {view[x.name].calls for x in layers if x.kind == "vision_block"} == {1}
        modules = dict(family.model.named_modules())
        assert all(isinstance(modules[name], torch.nn.Module) for name in view)
        recorded: Counter[str] = Counter()
        for event in (event for piece in TraceFile(tmp_path / "trace" / "batch0.json.gz") for event in piece):
            if event["name"].startswith("lp:"):
                recorded[event["name"][3:].partition("#")[0]] += event["dur"]
        # The plugin adds start and length in floats of microseconds since the epoch, good to about a nanosecond.
        assert {name: row.host for name, row in view.items()} == pytest.approx(dict(recorded), abs=0.02)

    def test_the_plain_trace_is_chrome_trace_json(self, tmp_path: Path) -> None:
        """Perfetto needs complete events with numbers for times, in one JSON object."""
        family = families.build("llama")
        hook = KernelsHook(family.model, find_layers(family.model), folder=tmp_path)
        with hook, hook.batch(0):
            families.run(family, new_tokens=2)
        with gzip.open(tmp_path / "trace" / "batch0.json.gz") as stream:
            whole = json.load(stream)
        complete = [event for event in whole["traceEvents"] if event["ph"] == "X"]
        assert {type(event["ts"]) for event in complete} <= {int, float}
        assert any(event["name"].startswith("lp:model.layers.0#0|prefill") for event in complete)
