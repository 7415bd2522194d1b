"""The books close whatever was read, with each figure in the account where it belongs; sums of rows add."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from few_layers import BLOCK0, KEYS, LAYER0, LAYER0_MLP, LAYER1, LAYERS, MERGER, NORM, VISION_NORM
from hypothesis import given
from hypothesis import strategies as st
from sample_run import sample_run

from layerprof.books import ledger, spans
from layerprof.books.rows import LayerEnergy
from layerprof.energy.amount import Amount
from layerprof.layers.nesting import accounts
from layerprof.readings import KernelReading, Layer, Lost, Span, SpanReading, Work, WorkReading
from layerprof.records import LedgerColumn, NotRecorded, Phase, Quality

seconds = st.floats(0, 1e4, allow_nan=False)
counts = st.integers(0, 10**15)
works = st.builds(Work, st.integers(0, 99), counts, counts, counts, counts, counts, counts)


ACCOUNT = {
    BLOCK0.name: "layers", LAYER0.name: "layers", LAYER0_MLP.name: "layers", LAYER1.name: "layers",
    MERGER.name: "merger", VISION_NORM.name: "vision norm", NORM.name: "language norm",
}  # fmt: skip
"""Where each layer's figures belong, written down by hand."""


def assert_closed(column: LedgerColumn, parts: Iterable[tuple[str, float]], total: float) -> None:
    """Hold that a column has each part in its account, the total that was given, and the difference as residual."""
    expected: dict[str, float] = {"layers": 0.0}
    for account, value in parts:
        expected[account] = expected.get(account, 0.0) + value
    near = 1e-9 * max(1.0, total, *expected.values())
    assert column.layers == pytest.approx(expected.pop("layers"), abs=near)
    assert column.rest == {name: pytest.approx(value, abs=near) for name, value in expected.items()}
    assert column.total == pytest.approx(total, abs=near)
    assert column.residual == pytest.approx(total - (column.layers or 0.0) - sum(column.rest.values()), abs=near)


# --- books ------------------------------------------------------------------------------------------------------


def test_the_books_of_a_log_of_three_batches_by_hand() -> None:
    """Ends and starts of layers in three batches: every nanosecond of every batch is in its account.

    Batch 0: 5 ns before, block 20, gap 5, merger 10, gap 10, layer 50, of which 30 in its MLP: 100 ns, and 4 more on
    the host's clock. Batch 1: layer 70 ns, after it 20. Batch 2: prefill 15, decode 25 and 26 with 2 and 3 in front of
    them: 71 ns. The layers' own: 20 + 50 + 70 + 15 + 51 = 206 of 265 ns.
    """
    slot = {layer.name: number for number, layer in enumerate(LAYERS)}

    def call(layer: Layer, phase: Phase, step: int, start: int, end: int, *inner: Any) -> list[Any]:
        return [slot[layer.name], phase, step, start, *inner, ~slot[layer.name], phase, step, end]

    vision, prefill, decode = Phase.VISION, Phase.PREFILL, Phase.DECODE
    mlp = call(LAYER0_MLP, prefill, 0, 60, 90)
    logs = [
        call(BLOCK0, vision, 0, 5, 25) + call(MERGER, vision, 0, 30, 40) + call(LAYER0, prefill, 0, 50, 100, *mlp),
        call(LAYER1, prefill, 0, 0, 70),
        call(LAYER0, prefill, 0, 0, 15) + call(LAYER0, decode, 1, 17, 42) + call(LAYER0, decode, 2, 45, 71),
    ]
    windows = [spans.BatchLog(104, 100, logs[0]), spans.BatchLog(90, 90, logs[1]), spans.BatchLog(71, 71, logs[2])]
    reading = spans.read(windows, LAYERS, "fake")
    column = ledger.close(LAYERS, reading).span_s
    assert column.layers == pytest.approx(206e-9)
    assert column.rest == pytest.approx(
        {
            "merger": 10e-9,
            "before the first layer": 5e-9,
            "within vision": 5e-9,
            "vision to prefill": 10e-9,
            "after the last layer": 20e-9,
            "prefill to decode": 2e-9,
            "between decode steps": 3e-9,
        }
    )
    assert column.residual == pytest.approx(4e-9)
    assert column.total == pytest.approx(265e-9)
    nested = {s.layer: s.self_s for s in reading.spans if s.batch == 0 and s.layer.startswith(LAYER0.name)}
    assert nested == {LAYER0.name: pytest.approx(50e-9), LAYER0_MLP.name: 0}


@given(
    layers=st.dictionaries(st.sampled_from(KEYS), works),
    outside=st.dictionaries(
        st.tuples(st.sampled_from(["", "lm.rotary", "a.3.fc", "b.4.fc"]), st.sampled_from(Phase)), works
    ),
    more=st.integers(-(10**9), 10**19),
)
def test_flops_close_exactly_in_integers(
    layers: dict[tuple[str, Phase], Work], outside: dict[tuple[str, Phase], Work], more: int
) -> None:
    """Each FLOP is in the account of its layer; what the total has beyond all of them, or lacks, is the residual."""
    total = sum(work.flops for work in (*layers.values(), *outside.values())) + more
    column = ledger.close(LAYERS, work=WorkReading(layers, outside, total)).flops
    accounts = Counter[str]()
    for (name, _), work in layers.items():
        accounts[ACCOUNT[name]] += work.flops
    inside = accounts.pop("layers", 0)
    elsewhere = sum(work.flops for work in outside.values())
    named = {name: flops for name, flops in column.rest.items() if not name.startswith("outside layers: ")}
    assert (column.layers, column.residual, column.total) == (inside, more, total)
    assert named == dict(accounts)
    assert sum(column.rest.values()) == sum(accounts.values()) + elsewhere
    assert all(isinstance(value, int) for value in (column.layers, column.residual, *column.rest.values()))


@given(
    calls=st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 3), seconds, seconds, seconds)),
    windows=st.lists(seconds, max_size=4),
    gaps=st.dictionaries(st.sampled_from(["before the first layer", "within decode", "merger"]), seconds),
)
def test_spans_close(
    calls: list[tuple[tuple[str, Phase], int, float, float, float]], windows: list[float], gaps: dict[str, float]
) -> None:
    """Self times of all calls in all batches, gaps and windows, also where a gap has the name of a layer's kind."""
    found = tuple(Span(*key, batch, 0, start, start + length, own) for key, batch, start, length, own in calls)
    column = ledger.close(LAYERS, SpanReading(found, tuple(windows), gaps, "fake")).span_s
    assert_closed(column, [*((ACCOUNT[name], own) for (name, _), *_, own in calls), *gaps.items()], sum(windows))


@given(
    busy=st.dictionaries(st.sampled_from(KEYS), seconds),
    buckets=st.dictionaries(st.sampled_from(["outside layers", "no launch seen", "graph launch"]), seconds),
    total=seconds,
)
def test_busy_closes(busy: dict[tuple[str, Phase], float], buckets: dict[str, float], total: float) -> None:
    """Kernels of layers by account, buckets under their own names."""
    column = ledger.close(LAYERS, kernels=KernelReading(busy, {}, buckets, total, {}, "cuda", 1)).busy_s
    assert_closed(column, [*((ACCOUNT[name], value) for (name, _), value in busy.items()), *buckets.items()], total)


@given(
    joules=st.dictionaries(st.sampled_from(KEYS), seconds),
    rest=st.dictionaries(st.sampled_from(["gaps", "host"]), seconds),
    spent=seconds,
)
def test_energy_closes(joules: dict[tuple[str, Phase], float], rest: dict[str, float], spent: float) -> None:
    """Joules of whole layers, and of what is no layer's; a submodule's are its layer's already."""
    column = ledger.close(
        LAYERS,
        energy=LayerEnergy({key: Amount(j) for key, j in joules.items()}, Quality.REPLAYED, rest_j=rest),
        total_energy_j=spent,
    ).energy_j
    if not joules and not rest:
        assert (column.layers, column.residual, column.total) == (None, None, spent)
        return
    own = ((ACCOUNT[name], value) for (name, _), value in joules.items() if name != LAYER0_MLP.name)
    assert_closed(column, [*own, *rest.items()], spent)


def test_a_residual_within_the_rounding_of_sums_is_none() -> None:
    """Ten times 0.1 s is not 1 s in doubles; one part in 10^12 of the total is no finding, one in 10^11 is."""
    found = tuple(Span(LAYER0.name, Phase.DECODE, 0, step, 0.0, 0.1, 0.1) for step in range(10))
    for wall, residual in ((1.0, 0.0), (1.0 + 5e-13, 0.0), (1.0 + 1e-11, pytest.approx(1e-11, rel=1e-3))):
        assert ledger.close(LAYERS, SpanReading(found, (wall,), {}, "fake")).span_s.residual == residual


def test_what_the_profiler_lost_stands_beside_the_books() -> None:
    """Launches without a record are counted by layer and phase and are in no figure; without any there is no note."""
    key = (LAYER0.name, Phase.DECODE)
    lost = Lost(3, 20, 0.5, {key: 2})
    kernels = KernelReading({key: 1.0}, {key: 1}, {}, 1.0, {}, "cuda", 1, lost=lost)
    column = ledger.close(LAYERS, kernels=kernels).busy_s
    assert (column.layers, column.residual, column.total) == (1.0, 0.0, 1.0)
    assert column.not_recorded == NotRecorded(launches=3, of=20, may_be=0.5, places={"lm.layers.0 decode": 2})
    assert ledger.close(LAYERS, kernels=replace(kernels, lost=Lost(0, 20))).busy_s.not_recorded is None


def test_joules_carry_their_quality_and_source() -> None:
    """A column of joules says how they were obtained; without an end-to-end figure it keeps saying so."""
    energy = LayerEnergy({(LAYER0.name, Phase.DECODE): Amount(5.0)}, Quality.REPLAYED, source="nvml_counter")
    for spent in (6.0, None):
        column = ledger.close(LAYERS, energy=energy, total_energy_j=spent).energy_j
        assert (column.quality, column.source) == (Quality.REPLAYED, "nvml_counter")


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
    """`rotary_emb` needs no path beside one that did nothing; two of one name do; numbered ones are one line."""
    outside = {
        ("model.lm.rotary_emb", Phase.PREFILL): Work(1, flops=1),
        ("model.lm.rotary_emb", Phase.DECODE): Work(1, flops=2),
        ("model.head.fc", Phase.DECODE): Work(1, flops=4),
        ("model.tail.fc", Phase.DECODE): Work(1, flops=8),
        ("model.lm.layers.3.q", Phase.DECODE): Work(1, flops=16),
        ("model.lm.layers.4.q", Phase.DECODE): Work(1, flops=32),
        ("model.idle", Phase.DECODE): Work(1, flops=0),
        ("model.other.rotary_emb", Phase.DECODE): Work(1, flops=0),
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


def test_busy_time_is_scaled_only_where_share_and_span_are_known() -> None:
    """A row without a span, or without a share, has no busy seconds of all its calls, and its sum no share."""
    base = next(row for row in sample_run().layers if row.busy_share is not None and row.span_s is not None)
    for missing in ({"span_s": None}, {"busy_share": None}):
        found = ledger.Sum.of(base.model_copy(update=missing))
        assert (found.busy_s, found.busy_share) == (None, None)
    assert ledger.Sum(busy_s=1.0).busy_share is None
    assert ledger.Sum(span_s=1.0).busy_share is None
    assert ledger.Sum(busy_s=1.0, span_s=4.0).busy_share == 0.25
