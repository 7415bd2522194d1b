"""Kernels of decode steps that a run replays from a graph: from a synthetic trace of one to its rows and books."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from layerprof.hooks.kernels import KernelsHook
from scenario import OUTSIDE, Scenario
from torch import nn

from layerprof.books import ledger, rows
from layerprof.readings import KernelReading, Layer, Span, SpanReading
from layerprof.records import Phase
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import GRAPH, Naming

BLOCKS, REPLAYS = 4, 5
LAYERS = (
    *(Layer(f"model.layers.{i}", "language", "decoder_layer", i) for i in range(BLOCKS)),
    Layer("model.norm", "language", "norm", 0),
    Layer("lm_head", "language", "lm_head", 0),
)
BLOCK_US, NORM_US, ROTARY_US, HEAD_US, COPY_US = (30.0, 20.0, 10.0), 4.0, 3.0, 50.0, 2.0
"""Kernels of a block (the i-th block's are i µs longer), of the norm, of none of them, of the head; a copied input."""


def block_us(number: int) -> list[float]:
    """Microseconds of a block's kernels."""
    return [length + number for length in BLOCK_US]


def own_run(*, node_ids: bool) -> Scenario:
    """Build what a run's recording of one batch holds: a prompt, a captured step, its replays; the head each time.

    With `node_ids` each kernel of a replay bears its node, as torch 2.12 writes it; without, only the launch's id.
    """
    s = Scenario()
    now = _prompt(s)
    nodes = _capture(s, now)
    now += 1_000
    for number in range(REPLAYS):
        now = _replay(s, now, number, nodes, node_ids)
    return s


def _prompt(s: Scenario) -> float:
    for number in range(BLOCKS):
        s.layer(LAYERS[number].name, 100 * number, 90, phase="prefill")
        for place, length in enumerate(block_us(number)):
            s.kernel(
                100 * number + 5 + place, 5_000 + 100 * number + 40 * place, length, (LAYERS[number].name, "prefill")
            )
    s.layer("lm_head", 100 * BLOCKS, 90, phase="prefill")
    s.kernel(100 * BLOCKS + 5, 6_000, HEAD_US, ("lm_head", "prefill"))
    return 7_000.0


def _capture(s: Scenario, at: float) -> list[tuple[str, str | None, float]]:
    """Capture a step: launches that run nothing, under the layers' ranges; return what each is to run, and whose."""
    s.launch(at, api="cudaStreamBeginCapture", dur=2)
    nodes: list[tuple[str, str | None, float]] = [("rotary", None, ROTARY_US)]
    s.launch(at + 5)
    for number in range(BLOCKS):
        start = at + 20 + 60 * number
        s.layer(LAYERS[number].name, start, 50, call=1)
        for place, length in enumerate(block_us(number)):
            s.launch(start + 5 + 10 * place)
            nodes.append((f"gemm{place}", LAYERS[number].name, length))
    s.layer("model.norm", at + 600, 50, call=0)
    s.launch(at + 610)
    nodes.append(("norm", "model.norm", NORM_US))
    s.launch(at + 700, api="cudaStreamEndCapture", dur=20)
    s.captured += len(nodes)
    return nodes


def _replay(s: Scenario, at: float, number: int, nodes: list[tuple[str, str | None, float]], node_ids: bool) -> float:
    s.kernel(at, at + 10, COPY_US, OUTSIDE, name="copy of an input")
    s.correlations += 1
    s.add("cuda_runtime", "cudaGraphLaunch", at + 5, 4, correlation=s.correlations)
    launch, starts = s.correlations, at + 20
    for node, (name, layer, length) in enumerate(nodes):
        label = OUTSIDE if layer is None else (layer, "decode")
        s.running(starts, length, label, launch, name=name)
        if node_ids:
            s.events[-1]["args"]["graph node id"] = (3 << 32) + node
        starts += length + 1
    s.layer("lm_head", starts, 20, call=number + 1)
    s.kernel(starts + 5, starts + 10, HEAD_US, ("lm_head", "decode"))
    return starts + 200


def reading(scenario: Scenario, folder: Path) -> KernelReading:
    """Read a trace as a run reads its own."""
    trace = folder / "batch0.json.gz"
    with gzip.open(trace, "wt") as stream:
        json.dump({"traceEvents": scenario.events}, stream)
    hook = KernelsHook(nn.Module(), (), device="cuda:0", folder=folder)
    hook._traces = [trace]
    found: KernelReading = hook.reading()
    return found


@pytest.mark.parametrize("node_ids", [True, False])
class TestAReplayedRun:
    """A recording with its own capture, with ids of nodes and without."""

    def test_each_kernel_is_the_layers_that_captured_it(self, tmp_path: Path, node_ids: bool) -> None:
        """Microseconds are those of the construction; the bucket of graphs is empty, and all adds up."""
        scenario = own_run(node_ids=node_ids)
        read = reading(scenario, tmp_path)
        expected = {(name, Phase(str(phase))): us / 1e6 for (name, phase), us in scenario.self_us.items()}
        assert read.busy_s == pytest.approx(expected)
        assert read.buckets_s[GRAPH] == 0
        assert read.buckets_s[OUTSIDE] == pytest.approx(REPLAYS * (ROTARY_US + COPY_US) / 1e6)
        assert read.total_s == pytest.approx(scenario.total_us / 1e6)
        assert (read.device, read.lost.launches) == ("cuda", 0)

    def test_a_call_is_a_replay(self, tmp_path: Path, node_ids: bool) -> None:
        """The capture ran nothing, and is no call."""
        read = reading(own_run(node_ids=node_ids), tmp_path)
        names = [layer.name for layer in LAYERS if layer.kind != "lm_head"]
        assert {name: read.calls[name, Phase.DECODE] for name in names} == dict.fromkeys(names, REPLAYS)
        assert read.calls["lm_head", Phase.DECODE] == REPLAYS
        assert read.calls["model.layers.0", Phase.PREFILL] == 1

    def test_a_row_says_that_it_was_captured(self, tmp_path: Path, node_ids: bool) -> None:
        """Decoder layers in decode; the head was called each time, and prefill too."""
        result = attribute(own_run(node_ids=node_ids).events)
        worked = {(row.name, row.phase): row.naming for row in result.rows if row.self_ns}
        assert worked["model.layers.2", Phase.DECODE] is Naming.CAPTURED
        assert worked["model.layers.2", Phase.PREFILL] is worked["lm_head", Phase.DECODE] is Naming.RECORDED

    def test_rows_and_books_have_kernels_without_spans(self, tmp_path: Path, node_ids: bool) -> None:
        """Where no span was read in decode, busy time stands without a share; the column of busy time closes."""
        read = reading(own_run(node_ids=node_ids), tmp_path)
        seen = {(row.name, row.phase): row for row in rows.rows(LAYERS, spans(decode=False), kernels=read)}
        row = seen["model.layers.1", Phase.DECODE]
        assert row.busy_s == pytest.approx(REPLAYS * sum(block_us(1)) / 1e6)
        assert (row.span_s, row.busy_share, row.busy_span_s, row.busy_calls) == (None, None, None, REPLAYS)
        assert seen["model.layers.1", Phase.PREFILL].busy_share == pytest.approx(sum(block_us(1)) / 100)
        column = ledger.close(LAYERS, kernels=read).busy_s
        blocks = sum(sum(block_us(number)) for number in range(BLOCKS)) * (REPLAYS + 1)
        assert column.layers == pytest.approx(blocks / 1e6)
        assert column.residual == pytest.approx(0, abs=1e-12)

    def test_a_share_is_of_the_replays_spans(self, tmp_path: Path, node_ids: bool) -> None:
        """Where events of the graph gave spans, busy over span is of as many calls."""
        read = reading(own_run(node_ids=node_ids), tmp_path)
        seen = {(row.name, row.phase): row for row in rows.rows(LAYERS, spans(decode=True), kernels=read)}
        assert seen["model.layers.3", Phase.DECODE].busy_share == pytest.approx(sum(block_us(3)) / 100)


def spans(*, decode: bool) -> SpanReading:
    """Return spans of 100 µs: of the blocks in prefill, and where `decode` in each replay."""
    steps = [(Phase.PREFILL, 0), *((Phase.DECODE, step) for step in range(1, REPLAYS + 1) if decode)]
    found = [
        Span(layer.name, phase, 0, step, 0.001 * step, 0.001 * step + 1e-4, 1e-4)
        for phase, step in steps
        for layer in LAYERS
        if layer.kind == "decoder_layer"
    ]
    return SpanReading(tuple(found), (0.01,), {}, "CUDA events")
