"""Rows show layers with everything inside them, each figure over the calls that it is of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from few_layers import BLOCK0, LAYER0, LAYER0_MLP, LAYER1, LAYERS, MERGER, NORM, span

from layerprof.books.rows import LayerEnergy, decode_by_step
from layerprof.books.rows import rows as layer_rows
from layerprof.energy.amount import Amount
from layerprof.readings import KernelReading, Span, SpanReading, Work, WorkReading
from layerprof.records import Phase, Quality


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


def test_the_first_call_decides_where_a_layer_stands() -> None:
    """One that ran first and last stands before one that ran between; a later batch's earlier start does not count."""
    spans = (
        span(LAYER1, Phase.DECODE, 2.0, 3.0),
        span(LAYER1, Phase.DECODE, 8.0, 9.0, batch=1),
        span(LAYER0, Phase.DECODE, 5.0, 6.0),
        span(LAYER0, Phase.DECODE, 0.0, 1.0, batch=1),
    )
    rows = layer_rows(LAYERS, SpanReading(spans, (10.0, 10.0), {}, "fake"))
    assert [row.name for row in rows] == [LAYER1.name, LAYER0.name]


def test_a_layer_that_was_never_timed_and_has_no_predecessor_stands_first() -> None:
    """The first of the list comes before whatever was timed."""
    spans = SpanReading((span(MERGER, Phase.VISION, 0.0, 1.0),), (1.0,), {}, "fake")
    work = WorkReading({(BLOCK0.name, Phase.VISION): Work(1, flops=1)}, {}, 1)
    assert [row.name for row in layer_rows(LAYERS, spans, work)] == [BLOCK0.name, MERGER.name]


def test_a_layer_of_which_only_a_part_was_called_has_no_row() -> None:
    """What stands in it by name was called from elsewhere: a row holds what ran inside its layer's calls."""
    key = (LAYER0_MLP.name, Phase.DECODE)
    (row,) = layer_rows(LAYERS, work=WorkReading(nested={((key[0],), key[1]): Work(6, flops=70)}, total_flops=70))
    assert (row.name, row.calls, row.flops) == (LAYER0_MLP.name, 6, 70)


def test_a_row_has_the_distribution_of_its_calls() -> None:
    """Total is the sum, median and p95 are of single calls: 1, 2, ..., 21 s give 231, 11 and 20 s."""
    spans = tuple(span(LAYER0, Phase.DECODE, 100.0 * n, 100.0 * n + n) for n in range(1, 22))
    (row,) = layer_rows(LAYERS, SpanReading(spans, (1.0,), {}, "fake"))
    assert row.calls == 21
    assert row.span_s is not None
    assert (row.span_s.total, row.span_s.median, row.span_s.p95) == pytest.approx((231.0, 11.0, 20.0))


def test_a_row_shows_its_layer_with_everything_inside() -> None:
    """FLOPs, bytes and kernels of what a layer called are in its row too, whoever the books give them; calls are not.

    Three calls of a block made six of its part; four more were made elsewhere.
    """
    key, inner = (LAYER0.name, Phase.DECODE), (LAYER1.name, Phase.DECODE)
    work = WorkReading(
        {key: Work(3, 30), inner: Work(10, 110)},
        nested={
            ((LAYER0.name,), Phase.DECODE): Work(3, 100, 100, 100, 11, 22, 33),
            ((LAYER0.name, LAYER1.name), Phase.DECODE): Work(6, 70, 70, 70, 10, 20, 30),
            ((LAYER1.name,), Phase.DECODE): Work(4, 40, 40, 40, 1, 2, 3),
        },
    )
    kernels = KernelReading(
        {key: 1.0, inner: 5.0}, {key: 3, inner: 10}, {}, 6.0, {}, "cuda", 1, whole_s={key: 3.0, inner: 5.0}
    )
    outer, part = layer_rows(LAYERS, work=work, kernels=kernels)
    assert (outer.calls, outer.flops, outer.bytes, outer.busy_s, outer.busy_calls) == (3, 100, 66, 3.0, 3)
    assert (part.calls, part.flops, part.bytes, part.busy_s, part.busy_calls) == (10, 110, 66, 5.0, 10)


def test_a_layer_that_calls_itself_has_its_work_and_time_once() -> None:
    """Two calls, the second of 2 s and 10 FLOPs inside the first of 5 s and 30: 5 s and 30 FLOPs together."""
    name = LAYER0.name
    nested = {((name,), Phase.DECODE): Work(1, 30), ((name, name), Phase.DECODE): Work(1, 10)}
    calls = (Span(name, Phase.DECODE, 0, 1, 0, 5, 3), Span(name, Phase.DECODE, 0, 1, 1, 3, 2, (name,)))
    (row,) = layer_rows(LAYERS, SpanReading(calls, (5.0,), {}, "fake"), WorkReading(nested=nested))
    assert row.span_s is not None
    assert (row.calls, row.flops, row.span_s.total, row.span_s.median) == (2, 30, 5.0, 3.5)


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


def test_the_traced_calls_are_taken_at_their_mean_span() -> None:
    """Two calls of 2 s and 4 s in the traced batch: the trace saw four like them, 12 s, of which 3 s were busy.

    Where no span is of a traced batch, those of the others stand for them: 10 s a call.
    """
    key = (LAYER0.name, Phase.DECODE)
    spans = [span(LAYER0, Phase.DECODE, 10.0, 12.0), span(LAYER0, Phase.DECODE, 20.0, 24.0)]
    spans.append(span(LAYER0, Phase.DECODE, 5.0, 15.0, batch=1))
    kernels = KernelReading({key: 3.0}, {key: 4}, {}, 3.0, {}, "cuda", 1)
    (row,) = layer_rows(LAYERS, SpanReading(tuple(spans), (40.0,), {}, "fake"), None, kernels)
    assert (row.busy_span_s, row.busy_share) == (12.0, 0.25)
    (other,) = layer_rows(LAYERS, SpanReading((spans[-1],), (40.0,), {}, "fake"), None, kernels)
    assert other.busy_span_s == 40.0


def test_a_layer_that_is_not_listed_has_no_row() -> None:
    """What ran under another name is in the ledger, not among the rows."""
    key, other = (LAYER0.name, Phase.DECODE), ("lm.rotary", Phase.DECODE)
    spans = SpanReading((span(LAYER0, Phase.DECODE, 0.0, 1.0),), (1.0,), {}, "fake")
    work = WorkReading({key: Work(1, flops=1), other: Work(1, flops=2)}, {}, 3)
    assert [row.name for row in layer_rows(LAYERS, spans, work)] == [LAYER0.name]


def test_busy_share_on_a_cpu_is_over_the_range_in_the_same_trace() -> None:
    """Operators that the profiler slowed to 3 s ran in a range of 4 s, so 75 %, though the latency pass took 1 s."""
    key = (LAYER0.name, Phase.DECODE)
    kernels = KernelReading({key: 3.0}, {key: 2}, {}, 3.0, {}, "cpu", 1, host_s={key: 4.0})
    spans = SpanReading((span(LAYER0, Phase.DECODE, 0.0, 1.0),), (1.0,), {}, "fake")
    (row,) = layer_rows(LAYERS, spans, None, kernels)
    assert (row.busy_s, row.busy_span_s, row.busy_share) == (3.0, 4.0, 0.75)


def test_busy_share_of_a_layer_holds_the_layers_inside_it() -> None:
    """1 of 4 s its own and 2 of 4 s in what it called: 3 of 8."""
    key, inner = (LAYER0.name, Phase.DECODE), (LAYER0_MLP.name, Phase.DECODE)
    calls = {key: 1, inner: 1}
    kernels = KernelReading({key: 1.0, inner: 2.0}, calls, {}, 3.0, {}, "cpu", 1, host_s={key: 4.0, inner: 4.0})
    kernels = replace(kernels, whole_s={key: 3.0, inner: 2.0}, host_whole_s={key: 8.0, inner: 4.0})
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
    assert short.energy_reason == "not measured for this layer in this phase"
    (unread, _) = layer_rows(LAYERS, spans)
    assert (unread.energy_j, unread.energy_ci95, unread.energy_quality) == (None, None, Quality.UNAVAILABLE)
    assert unread.energy_reason == "no energy was measured"


def test_further_joules_and_labels_of_a_row_are_its_own() -> None:
    """A row's own label wins over that of all; interval and source stand beside joules only."""
    key, bare = (LAYER0.name, Phase.DECODE), (LAYER1.name, Phase.DECODE)
    energy = LayerEnergy(
        {key: Amount(3.0, (2.5, 3.5))},
        Quality.REPLAYED,
        "all of them",
        labels={key: (Quality.ATTRIBUTED, "shared"), bare: (Quality.ATTRIBUTED, "refused")},
        source="nvml_counter",
        active_j={key: 1.0, bare: 4.0},
        hot_j={key: 2.0},
        reconciled_j={key: 3.1},
        estimate_j={bare: 9.0},
    )
    spans = SpanReading((span(LAYER0, Phase.DECODE, 0, 1), span(LAYER1, Phase.DECODE, 1, 2)), (2.0,), {}, "fake")
    first, second = layer_rows(LAYERS, spans, energy=energy)
    assert (first.energy_j, first.energy_ci95, first.energy_source) == (3.0, (2.5, 3.5), "nvml_counter")
    assert (first.energy_quality, first.energy_reason) == (Quality.ATTRIBUTED, "shared")
    assert (first.energy_active_j, first.energy_hot_j, first.energy_reconciled_j) == (1.0, 2.0, 3.1)
    assert first.energy_estimate_j is None
    assert (second.energy_j, second.energy_ci95, second.energy_source) == (None, None, None)
    assert (second.energy_quality, second.energy_reason) == (Quality.UNAVAILABLE, "refused")
    assert (second.energy_active_j, second.energy_hot_j, second.energy_estimate_j) == (4.0, None, 9.0)


def test_a_row_that_only_joules_are_known_of_was_called_as_far_as_is_known_never() -> None:
    """No reading counted its calls: zero, no span, no work."""
    (row,) = layer_rows(LAYERS, energy=LayerEnergy({(LAYER0.name, Phase.DECODE): Amount(3.0)}, Quality.REPLAYED))
    assert (row.calls, row.span_s, row.flops, row.energy_j) == (0, None, None, 3.0)


def test_the_roof_is_asked_about_a_mean_call() -> None:
    """FLOPs, bytes and seconds handed to the roof are those of one call; without a roof there is no share."""
    key = (LAYER0.name, Phase.DECODE)
    spans = SpanReading((span(LAYER0, Phase.DECODE, 0, 0.25), span(LAYER0, Phase.DECODE, 2, 2.75)), (5.0,), {}, "fake")
    work = WorkReading({key: Work(2, 100, 100, 100, 10, 20, 30)}, {}, 100)
    asked: list[tuple[float, float, float]] = []

    def roof(flops: float, moved: float, seconds: float) -> float:
        asked.append((flops, moved, seconds))
        return 0.5

    (row,) = layer_rows(LAYERS, spans, work, roof=roof)
    assert asked == [(50.0, 30.0, 0.5)]
    assert row.roof_share == 0.5
    assert layer_rows(LAYERS, spans, work)[0].roof_share is None
    nothing = SpanReading((span(LAYER0, Phase.DECODE, 0, 0),), (5.0,), {}, "fake")
    assert layer_rows(LAYERS, nothing, work, roof=roof)[0].roof_share is None, "no time has no share"


def test_no_reading_no_rows() -> None:
    """Layers that nothing saw have no rows."""
    assert layer_rows(LAYERS) == ()


def test_decode_step_by_step_is_over_batches() -> None:
    """21 batches whose second step took 1, 2, ..., 21 s in two layers: median 11 s, p95 20 s; the first step 1 s each.

    Prefill is no step, and a batch that was answered by fewer steps is not in the later ones.
    """
    spans = [span(LAYER0, Phase.PREFILL, 0.0, 99.0)]
    for batch in range(21):
        spans += [span(LAYER0, Phase.DECODE, 0.0, 1.0, batch, step=1)]
        spans += [span(LAYER0, Phase.DECODE, 2.0, 2.5, batch, step=2)]
        spans += [span(LAYER1, Phase.DECODE, 3.0, 3.5 + batch, batch, step=2)]
    spans += [span(LAYER0, Phase.DECODE, 5.0, 9.0, 20, step=3)]
    assert decode_by_step(SpanReading(tuple(spans), (1.0,), {}, "fake")) == [
        {"step": 1, "median_s": 1.0, "p95_s": 1.0, "batches": 21},
        {"step": 2, "median_s": 11.0, "p95_s": 20.0, "batches": 21},
        {"step": 3, "median_s": 4.0, "p95_s": 4.0, "batches": 1},
    ]


def test_a_step_has_each_moment_once() -> None:
    """A layer of 3 s with 2 s of them in its submodule takes 3 s of the step."""
    whole = replace(span(LAYER0, Phase.DECODE, 0.0, 3.0, step=1), self_s=1.0)
    inner = span(LAYER0_MLP, Phase.DECODE, 0.5, 2.5, step=1)
    (step,) = decode_by_step(SpanReading((whole, inner), (3.0,), {}, "fake"))
    assert step["median_s"] == 3.0
