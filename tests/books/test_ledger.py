"""The books close whatever was read, and rows show layers with everything inside them."""

from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_run import sample_run

from layerprof.books import ledger
from layerprof.books.rows import LayerEnergy
from layerprof.books.rows import rows as layer_rows
from layerprof.energy.amount import Amount
from layerprof.layers.nesting import accounts
from layerprof.readings import KernelReading, Layer, Span, SpanReading, Work, WorkReading
from layerprof.records import LedgerColumn, Phase, Quality

BLOCK0 = Layer("visual.blocks.0", "vision", "vision_block", 0)
MERGER = Layer("visual.merger", "vision", "merger", 0)
LAYER0 = Layer("lm.layers.0", "language", "decoder_layer", 0)
LAYER0_MLP = Layer("lm.layers.0.mlp", "language", "module", 0)
LAYER1 = Layer("lm.layers.1", "language", "decoder_layer", 1)
VISION_NORM = Layer("visual.norm", "vision", "norm", 0)
NORM = Layer("lm.norm", "language", "norm", 0)
LAYERS = (BLOCK0, MERGER, LAYER0, LAYER0_MLP, LAYER1, VISION_NORM, NORM)
KEYS = [(layer.name, phase) for layer in LAYERS for phase in Phase]

seconds = st.floats(0, 1e4, allow_nan=False)
counts = st.integers(0, 10**15)
works = st.builds(Work, st.integers(0, 99), counts, counts, counts, counts, counts, counts)


def adds_up(column: LedgerColumn) -> bool:
    """Tell whether layers + rest + residual is the total, to float rounding of the largest figure."""
    assert column.layers is not None
    assert column.residual is not None
    assert column.total is not None
    whole = [column.layers, *column.rest.values(), column.residual]
    return isclose(sum(whole), column.total, abs_tol=1e-9 * max(1.0, *(abs(value) for value in whole)))


# --- books ------------------------------------------------------------------------------------------------------


@given(
    layers=st.dictionaries(st.sampled_from(KEYS), works),
    outside=st.dictionaries(
        st.tuples(st.sampled_from(["", "lm.rotary", "a.3.fc", "b.4.fc"]), st.sampled_from(Phase)), works
    ),
    total=st.integers(0, 10**19),
)
def test_flops_close_exactly_in_integers(
    layers: dict[tuple[str, Phase], Work], outside: dict[tuple[str, Phase], Work], total: int
) -> None:
    """Whatever was counted, layers + rest + residual is the total to the last FLOP, and all of them are integers."""
    column = ledger.close(LAYERS, work=WorkReading(layers, outside, total)).flops
    assert column.layers is not None
    assert column.residual is not None
    assert column.layers + sum(column.rest.values()) + column.residual == total
    assert all(isinstance(value, int) for value in (column.layers, column.residual, *column.rest.values()))
    counted = sum(work.flops for work in (*layers.values(), *outside.values()))
    assert column.residual == total - counted


@given(
    layers=st.dictionaries(st.sampled_from(KEYS), works),
    outside=st.dictionaries(st.tuples(st.sampled_from(["", "lm.rotary"]), st.sampled_from(Phase)), works),
)
def test_a_total_equal_to_what_was_counted_leaves_no_residual(
    layers: dict[tuple[str, Phase], Work], outside: dict[tuple[str, Phase], Work]
) -> None:
    """Work of nested layers is counted once: the independent total of the same work balances to zero."""
    total = sum(work.flops for work in (*layers.values(), *outside.values()))
    assert ledger.close(LAYERS, work=WorkReading(layers, outside, total)).flops.residual == 0


@given(
    spans=st.lists(st.tuples(st.sampled_from(KEYS), seconds, seconds, seconds)),
    windows=st.lists(seconds, max_size=4),
    gaps=st.dictionaries(st.sampled_from(["before the first layer", "within decode", "merger"]), seconds),
)
def test_spans_close(
    spans: list[tuple[tuple[str, Phase], float, float, float]], windows: list[float], gaps: dict[str, float]
) -> None:
    """Self times, gaps and residual add up to the windows, also where a gap has a layer's name."""
    found = tuple(Span(name, phase, 0, 0, start, start + length, own) for (name, phase), start, length, own in spans)
    column = ledger.close(LAYERS, SpanReading(found, tuple(windows), gaps, "fake")).span_s
    assert adds_up(column)
    assert column.total == pytest.approx(sum(windows))


@given(
    busy=st.dictionaries(st.sampled_from(KEYS), seconds),
    buckets=st.dictionaries(st.sampled_from(["outside layers", "no launch seen", "graph launch"]), seconds),
    total=seconds,
)
def test_busy_closes(busy: dict[tuple[str, Phase], float], buckets: dict[str, float], total: float) -> None:
    """Kernels of layers, buckets and residual add up to all kernels."""
    kernels = KernelReading(busy, {}, buckets, total, {}, "cuda", 1)
    assert adds_up(ledger.close(LAYERS, kernels=kernels).busy_s)


@given(
    joules=st.dictionaries(st.sampled_from(KEYS), seconds),
    rest=st.dictionaries(st.sampled_from(["gaps", "host"]), seconds),
    spent=seconds,
)
def test_energy_closes(joules: dict[tuple[str, Phase], float], rest: dict[str, float], spent: float) -> None:
    """Joules of layers, gaps and residual add up to the run's; without any there is nothing to balance."""
    energy = LayerEnergy({key: Amount(j) for key, j in joules.items()}, Quality.REPLAYED, rest_j=rest)
    column = ledger.close(LAYERS, energy=energy, total_energy_j=spent).energy_j
    assert adds_up(column) if joules or rest else column.residual is None


def test_nested_layers_are_counted_once() -> None:
    """A submodule's FLOPs, self time and kernels stand under its layer; its joules are already in the layer's."""
    key, inner = (LAYER0.name, Phase.DECODE), (LAYER0_MLP.name, Phase.DECODE)
    work = WorkReading({key: Work(1, flops=30), inner: Work(1, flops=70)}, {}, 100)
    spans = SpanReading(
        (Span(*key, 0, 1, 0.0, 10.0, 4.0), Span(*inner, 0, 1, 3.0, 9.0, 6.0)), (12.0,), {"within decode": 2.0}, "fake"
    )
    kernels = KernelReading({key: 1.0, inner: 2.0}, {key: 1, inner: 1}, {}, 3.0, {}, "cuda", 1)
    energy = LayerEnergy({key: Amount(5.0), inner: Amount(3.0)}, Quality.REPLAYED)
    books = ledger.close(LAYERS, spans, work, kernels, energy, total_energy_j=6.0)
    assert (books.flops.layers, books.flops.residual) == (100, 0)
    assert (books.span_s.layers, books.span_s.residual) == (10.0, 0.0)
    assert (books.busy_s.layers, books.busy_s.residual) == (3.0, 0.0)
    assert (books.energy_j.layers, books.energy_j.residual) == (5.0, 1.0)


def test_the_rest_is_named_by_kind_and_by_tower_where_needed() -> None:
    """A kind that one tower has is named by itself; one that both have carries the tower."""
    named = accounts(LAYERS)
    assert (named[MERGER.name], named[VISION_NORM.name], named[NORM.name]) == ("merger", "vision norm", "language norm")
    assert named[BLOCK0.name] == named[LAYER0_MLP.name] == ""


def test_a_submodule_around_layers_keeps_only_what_is_its_own() -> None:
    """Selecting a whole tower beside its blocks leaves the blocks their account and names the remainder by its path."""
    tower = Layer("visual", "vision", "module", 0)
    key, inside = ("visual", Phase.VISION), (BLOCK0.name, Phase.VISION)
    work = WorkReading({key: Work(1, flops=3), inside: Work(1, flops=7)}, {}, 10)
    energy = LayerEnergy({key: Amount(9.0), inside: Amount(6.0)}, Quality.REPLAYED)
    books = ledger.close((tower, BLOCK0), work=work, energy=energy, total_energy_j=9.0)
    assert (books.flops.layers, books.flops.rest, books.flops.residual) == (7, {"visual": 3}, 0)
    assert (books.energy_j.layers, books.energy_j.rest, books.energy_j.residual) == (6.0, {}, 3.0)


def test_work_outside_layers_is_named_by_the_shortest_path_and_repeats_share_a_name() -> None:
    """`rotary_emb` alone needs no path; two modules of one name need more of it; numbered ones become one line."""
    outside = {
        ("model.lm.rotary_emb", Phase.PREFILL): Work(1, flops=1),
        ("model.lm.rotary_emb", Phase.DECODE): Work(1, flops=2),
        ("model.head.fc", Phase.DECODE): Work(1, flops=4),
        ("model.tail.fc", Phase.DECODE): Work(1, flops=8),
        ("model.lm.layers.3.q", Phase.DECODE): Work(1, flops=16),
        ("model.lm.layers.4.q", Phase.DECODE): Work(1, flops=32),
        ("model.idle", Phase.DECODE): Work(1, flops=0),
        ("", Phase.DECODE): Work(1, flops=64),
    }
    column = ledger.close((), work=WorkReading({}, outside, 127)).flops
    assert column.residual == 0
    assert column.rest == {
        "outside layers: rotary_emb": 3,
        "outside layers: head.fc": 4,
        "outside layers: tail.fc": 8,
        "outside layers: q": 48,
        "outside layers: the model itself": 64,
    }


def test_what_was_not_read_is_none_with_its_reason() -> None:
    """A pass that did not run leaves None, never 0, and the reason that was given, or the plain one."""
    books = ledger.close(LAYERS, reasons={"busy_s": "--no-trace was given"})
    assert books.busy_s == LedgerColumn(layers=None, rest={}, residual=None, total=None, reason="--no-trace was given")
    assert books.flops.layers is None
    assert books.flops.reason == "the flops pass did not run"


def test_energy_without_an_end_to_end_total_is_not_closed() -> None:
    """Joules per layer without joules of the run are shown, with no residual and the reason why."""
    energy = LayerEnergy({(LAYER0.name, Phase.DECODE): Amount(2.0)}, Quality.REPLAYED)
    column = ledger.close(LAYERS, energy=energy).energy_j
    assert (column.layers, column.residual, column.total) == (2.0, None, None)
    assert column.reason


def test_measured_energy_without_layers_keeps_its_total() -> None:
    """Joules of the run without joules per layer keep the total, and say why the layers have none."""
    column = ledger.close(LAYERS, total_energy_j=7.0, reasons={"energy_j": "the sensor is too slow"}).energy_j
    assert (column.layers, column.total, column.reason) == (None, 7.0, "the sensor is too slow")


# --- rows -------------------------------------------------------------------------------------------------------


def span(layer: Layer, phase: Phase, start: float, end: float, batch: int = 0) -> Span:
    """Return one call that called no other located layer."""
    return Span(layer.name, phase, batch, 0, start, end, end - start)


def test_rows_stand_in_the_order_of_execution_within_each_phase() -> None:
    """Phases in order; inside one, layers as they ran; one that was never timed behind its predecessor."""
    spans = (
        span(LAYER1, Phase.DECODE, 9.0, 9.5),
        span(LAYER1, Phase.PREFILL, 3.0, 4.0),
        span(LAYER0, Phase.PREFILL, 5.0, 6.0),
        span(BLOCK0, Phase.VISION, 1.0, 2.0),
    )
    work = WorkReading({(LAYER0_MLP.name, Phase.PREFILL): Work(1, flops=1)}, {}, 1)
    rows = layer_rows(LAYERS, SpanReading(spans, (10.0,), {}, "fake"), work)
    assert [(row.name, row.phase) for row in rows] == [
        (BLOCK0.name, Phase.VISION),
        (LAYER1.name, Phase.PREFILL),
        (LAYER0.name, Phase.PREFILL),
        (LAYER0_MLP.name, Phase.PREFILL),
        (LAYER1.name, Phase.DECODE),
    ]


def test_a_row_has_the_distribution_of_its_calls() -> None:
    """Total is the sum, median and p95 are of single calls: 1, 2, ..., 21 s give 231, 11 and 20 s."""
    spans = tuple(span(LAYER0, Phase.DECODE, 100.0 * n, 100.0 * n + n) for n in range(1, 22))
    (row,) = layer_rows(LAYERS, SpanReading(spans, (1.0,), {}, "fake"))
    assert row.calls == 21
    assert row.span_s is not None
    assert (row.span_s.total, row.span_s.median, row.span_s.p95) == pytest.approx((231.0, 11.0, 20.0))


def test_a_row_shows_its_layer_with_everything_inside() -> None:
    """FLOPs, bytes and kernels of a nested submodule are in its layer's row too; its calls are not."""
    key, inner = (LAYER0.name, Phase.DECODE), (LAYER0_MLP.name, Phase.DECODE)
    work = WorkReading({key: Work(3, 30, 30, 30, 1, 2, 3), inner: Work(6, 70, 70, 70, 10, 20, 30)}, {}, 100)
    kernels = KernelReading({key: 1.0, inner: 2.0}, {key: 3, inner: 6}, {}, 3.0, {}, "cuda", 1)
    outer, mlp = layer_rows(LAYERS, work=work, kernels=kernels)
    assert (outer.calls, outer.flops, outer.bytes, outer.busy_s, outer.busy_calls) == (3, 100, 66, 3.0, 3)
    assert (mlp.calls, mlp.flops, mlp.bytes, mlp.busy_s, mlp.busy_calls) == (6, 70, 60, 2.0, 6)


def test_busy_share_compares_mean_calls_when_only_some_batches_were_traced() -> None:
    """4 calls of 2 s, of which 1 traced with 0.5 s busy: a quarter, and the row keeps the traced seconds."""
    spans = tuple(span(LAYER0, Phase.PREFILL, 0.0, 2.0, batch) for batch in range(4))
    kernels = KernelReading(
        {(LAYER0.name, Phase.PREFILL): 0.5}, {(LAYER0.name, Phase.PREFILL): 1}, {}, 0.5, {}, "cuda", 1
    )
    (row,) = layer_rows(LAYERS, SpanReading(spans, (8.0,), {}, "fake"), None, kernels)
    assert (row.calls, row.busy_s, row.busy_calls, row.busy_share) == (4, 0.5, 1, 0.25)


def test_busy_share_on_a_gpu_is_over_the_spans_of_the_traced_batches() -> None:
    """The first batch has a long prompt and is the traced one: 3 s busy of its 4 s, whatever the short ones took."""
    spans = tuple(span(LAYER0, Phase.PREFILL, 0.0, 4.0 if batch == 0 else 1.0, batch) for batch in range(5))
    key = (LAYER0.name, Phase.PREFILL)
    kernels = KernelReading({key: 3.0}, {key: 1}, {}, 3.0, {}, "cuda", 1, host_s={key: 0.1})
    (row,) = layer_rows(LAYERS, SpanReading(spans, (8.0,), {}, "fake"), None, kernels)
    assert (row.busy_s, row.busy_span_s, row.busy_share) == (3.0, 4.0, 0.75)


def test_busy_share_on_a_cpu_is_over_the_range_in_the_same_trace() -> None:
    """Operators that the profiler slowed to 3 s ran in a range of 4 s, so 75 %, though the latency pass took 1 s."""
    key = (LAYER0.name, Phase.DECODE)
    kernels = KernelReading({key: 3.0}, {key: 2}, {}, 3.0, {}, "cpu", 1, host_s={key: 4.0})
    spans = SpanReading((span(LAYER0, Phase.DECODE, 0.0, 1.0),), (1.0,), {}, "fake")
    (row,) = layer_rows(LAYERS, spans, None, kernels)
    assert (row.busy_s, row.busy_span_s, row.busy_share) == (3.0, 4.0, 0.75)


def test_busy_share_of_a_layer_holds_the_layers_inside_it() -> None:
    """1 of 4 s its own and 2 of 4 s in its submodule: 3 of 8."""
    key, inner = (LAYER0.name, Phase.DECODE), (LAYER0_MLP.name, Phase.DECODE)
    calls = {key: 1, inner: 1}
    kernels = KernelReading({key: 1.0, inner: 2.0}, calls, {}, 3.0, {}, "cpu", 1, host_s={key: 4.0, inner: 4.0})
    outer, mlp = layer_rows(LAYERS, kernels=kernels)
    assert (outer.busy_share, mlp.busy_share) == (0.375, 0.5)


def test_busy_share_is_unknown_where_cuda_graphs_ran_inside_the_layer() -> None:
    """Work of graphs stands in its bucket, so what is left says nothing about the layer."""
    key = (LAYER0.name, Phase.DECODE)
    kernels = KernelReading({key: 0.1}, {key: 1}, {"graph launch": 0.8}, 0.9, {}, "cuda", 1, graph_s={key: 0.8})
    spans = SpanReading((span(LAYER0, Phase.DECODE, 0.0, 1.0),), (1.0,), {}, "fake")
    (row,) = layer_rows(LAYERS, spans, None, kernels)
    assert (row.busy_s, row.busy_span_s, row.busy_share) == (0.1, None, None)


def test_a_layer_that_was_not_traced_has_no_busy_time_and_one_without_kernels_has_zero() -> None:
    """None where the trace did not reach, 0 where it did and nothing ran."""
    spans = (span(LAYER0, Phase.DECODE, 0.0, 1.0), span(LAYER1, Phase.DECODE, 1.0, 2.0))
    kernels = KernelReading({}, {(LAYER0.name, Phase.DECODE): 1}, {}, 0.0, {}, "cuda", 1)
    seen, unseen = layer_rows(LAYERS, SpanReading(spans, (2.0,), {}, "fake"), None, kernels)
    assert (seen.busy_s, seen.busy_share) == (0.0, 0.0)
    assert (unseen.busy_s, unseen.busy_share) == (None, None)


def test_energy_of_a_row_is_none_with_a_reason_or_a_figure_with_its_quality() -> None:
    """Each row says how its joules were obtained, or why there are none."""
    key = (LAYER0.name, Phase.DECODE)
    spans = SpanReading((span(LAYER0, Phase.DECODE, 0, 1), span(NORM, Phase.DECODE, 1, 2)), (2.0,), {}, "fake")
    energy = LayerEnergy({key: Amount(3.0, (2.5, 3.5))}, Quality.REPLAYED)
    measured, short = layer_rows(LAYERS, spans, energy=energy)
    assert (measured.energy_j, measured.energy_ci95, measured.energy_quality) == (3.0, (2.5, 3.5), Quality.REPLAYED)
    assert (short.energy_j, short.energy_quality) == (None, Quality.UNAVAILABLE)
    assert short.energy_reason


def test_the_roof_is_asked_about_a_mean_call() -> None:
    """FLOPs, bytes and seconds handed to the roof are those of one call; without a roof there is no share."""
    key = (LAYER0.name, Phase.DECODE)
    spans = SpanReading((span(LAYER0, Phase.DECODE, 0, 1), span(LAYER0, Phase.DECODE, 2, 5)), (5.0,), {}, "fake")
    work = WorkReading({key: Work(2, 100, 100, 100, 10, 20, 30)}, {}, 100)
    asked: list[tuple[float, float, float]] = []

    def roof(flops: float, moved: float, seconds: float) -> float:
        asked.append((flops, moved, seconds))
        return 0.5

    (row,) = layer_rows(LAYERS, spans, work, roof=roof)
    assert asked == [(50.0, 30.0, 2.0)]
    assert row.roof_share == 0.5
    assert layer_rows(LAYERS, spans, work)[0].roof_share is None


@given(st.dictionaries(st.sampled_from(KEYS), works, min_size=1))
def test_rows_of_outermost_layers_sum_to_all_work(layers: dict[tuple[str, Phase], Work]) -> None:
    """However layers are nested, the outermost rows hold each FLOP once."""
    rows = layer_rows(LAYERS, work=WorkReading(layers, {}, 0))
    assert sum(row.flops or 0 for row in ledger.outermost(rows)) == sum(work.flops for work in layers.values())


def test_no_reading_no_rows() -> None:
    """Layers that nothing saw have no rows."""
    assert layer_rows(LAYERS) == ()


# --- sums -------------------------------------------------------------------------------------------------------


def test_sums_add_by_group_and_scale_busy_to_all_calls() -> None:
    """Decode of the sample: three layers, 120 ms, of which (1 + 1 + 1 ms busy) x 10 calls is a quarter."""
    found = ledger.sums(sample_run().layers, lambda row: (row.kind, row.phase))
    decode = found["decoder_layer", Phase.DECODE]
    assert (decode.rows, decode.calls, decode.flops) == (3, 30, 3 * 10**9)
    assert decode.span_s == pytest.approx(0.120)
    assert decode.busy_share == pytest.approx(0.25)


def test_sums_keep_missing_apart_from_zero() -> None:
    """None and None is None; None beside a figure is that figure; `sum` starts from nothing."""
    nothing, some = ledger.Sum(rows=1), ledger.Sum(rows=1, flops=0, span_s=2.0)
    assert (nothing + nothing).flops is None
    assert (nothing + some).flops == 0
    assert sum([some, some, nothing], ledger.Sum()) == ledger.Sum(rows=3, flops=0, span_s=4.0)
