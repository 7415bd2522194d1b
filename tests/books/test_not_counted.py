"""Books that miss operators say which, where and for what share of the time; no figure of theirs passes for whole.

By hand, over the layers of `few_layers`: a block, a merger, two decoder layers of which one holds an MLP, two norms.
"""

from __future__ import annotations

import pytest
from few_layers import BLOCK0, LAYER0, LAYER0_MLP, LAYER1, LAYERS, MERGER, NORM, span

from layerprof.books import ledger, not_counted, rows, totals
from layerprof.readings import ELSEWHERE, NOT_WATCHED, SpanReading, Uncounted, Work, WorkReading
from layerprof.records import LayerRow, NotCounted, Phase

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
WORKED = {
    (BLOCK0.name, Phase.VISION): Work(1, 100, 100, 100, 8),
    (MERGER.name, Phase.VISION): Work(1, 0, 0, 0, 8),
    (LAYER0.name, PREFILL): Work(1, 40, 30, 20, 8),
    (LAYER0_MLP.name, PREFILL): Work(1, 0, 0, 0, 8),
    (LAYER1.name, DECODE): Work(3, 60, 60, 60, 8),
    (NORM.name, DECODE): Work(3, 0, 0, 0, 8),
}
MISSED = {
    (MERGER.name, Phase.VISION, "x::f"): Uncounted(2, 0.1),
    (LAYER0_MLP.name, PREFILL, "x::f"): Uncounted(1, 0.15),
    (LAYER1.name, DECODE, "x::g"): Uncounted(3, None),
    ("lm.rotary", PREFILL, "x::f"): Uncounted(1, 0.0),
}
INSIDE = {place: missed for place, missed in MISSED.items() if place[0] != "lm.rotary"}
WORK = WorkReading(
    WORKED,
    {("lm.rotary", PREFILL): Work(0, 5, 5, 5)},
    205,
    MISSED,
    uncounted_inside=INSIDE | {(LAYER0.name, PREFILL, "x::f"): Uncounted(1, 0.15)},
)
SPANS = SpanReading((span(LAYER0, PREFILL, 0, 1), span(LAYER1, DECODE, 1, 2)), (2.0, 0.5), {}, "fake")


def found() -> dict[tuple[str, Phase], LayerRow]:
    """Return the rows by layer and phase."""
    made = rows.rows(LAYERS, SPANS, WORK, roof=lambda *_: 0.5)
    return {(row.name, row.phase): row for row in made}


def test_rows_name_what_is_not_counted_inside_them_and_inside_the_layers_in_them() -> None:
    """The decoder layer's MLP misses one call, and so does the layer; the merger misses two; the block none."""
    assert {key: row.uncounted for key, row in found().items() if row.at_least} == {
        (MERGER.name, Phase.VISION): {"x::f": 2},
        (LAYER0.name, PREFILL): {"x::f": 1},
        (LAYER0_MLP.name, PREFILL): {"x::f": 1},
        (LAYER1.name, DECODE): {"x::g": 3},
    }


def test_what_is_known_of_a_row_stays_and_what_is_not_is_none() -> None:
    """No FLOP of merger and MLP is known: None, and their bytes are; a norm without matrix work has measured zero."""
    row = found()
    assert [row[key].flops for key in row] == [100, None, 40, None, 60, 0]
    assert row[MERGER.name, Phase.VISION].flops_useful is row[MERGER.name, Phase.VISION].flops_causal is None
    assert (row[LAYER0.name, PREFILL].flops_useful, row[LAYER0.name, PREFILL].flops_causal) == (30, 20)
    assert all(one.bytes for one in row.values())


def test_a_bound_reaches_no_share_of_the_roof() -> None:
    """The roof is of all the work of a call, which is not known."""
    row = found()
    assert row[LAYER0.name, PREFILL].roof_share is row[LAYER1.name, DECODE].roof_share is None
    whole = rows.rows(LAYERS, SPANS, WorkReading(WORKED), roof=lambda *_: 0.5)
    assert {one.roof_share for one in whole if one.span_s} == {0.5}


def test_the_books_name_operators_with_places_calls_and_their_share_of_the_time() -> None:
    """0.25 of 2.5 s are inside `x::f`; how long `x::g` took is not known, and so its share is not."""
    column = ledger.close(LAYERS, SPANS, WORK).flops
    assert column.not_counted["x::g"] == NotCounted(calls=3, share=None, places={f"{LAYER1.name} decode": 3})
    assert column.not_counted["x::f"].calls == 4
    assert column.not_counted["x::f"].share == pytest.approx(0.1)
    assert column.not_counted["x::f"].places == {
        f"{MERGER.name} vision": 2,
        f"{LAYER0_MLP.name} prefill": 1,
        "lm.rotary prefill": 1,
    }


def test_lines_of_the_books_that_miss_work_are_bounds_or_absent() -> None:
    """Blocks and the module outside know something; of the merger nothing is known, so that it has no figure."""
    column = ledger.close(LAYERS, SPANS, WORK).flops
    assert column.at_least == ("merger", "layers", "outside layers: rotary", "total")
    assert (column.layers, column.rest) == (200, {"language norm": 0, "outside layers: rotary": 5})
    assert (column.residual, column.total) == (0, 205)


def test_nothing_known_is_none_with_its_reason_and_no_zero() -> None:
    """The one operator that ran in the layer has no formula."""
    work = WorkReading(
        {(LAYER0.name, PREFILL): Work(1)}, {}, 0, {(LAYER0.name, PREFILL, "aten::mkldnn_rnn"): Uncounted(1)}
    )
    column = ledger.close(LAYERS, SPANS, work).flops
    assert (column.layers, column.rest, column.residual, column.total) == (None, {}, None, None)
    assert column.reason == f"1 call of aten::mkldnn_rnn in {LAYER0.name} (0.0 % of the time) has no formula"
    made = totals.of_work(work, 2)
    assert [made[name] for name in ("flops", "flops_per_sample", "flops_useful", "flops_causal")] == [None] * 4
    assert (made["flops_at_least"], made["bytes"]) == (True, 0)


def test_totals_of_books_that_miss_work_are_bounds() -> None:
    """What was counted, marked; without anything missing, or without a pass, there is no mark."""
    made = totals.of_work(WORK, 5)
    assert (made["flops"], made["flops_per_sample"], made["flops_at_least"]) == (205, 41.0, True)
    assert totals.of_work(WorkReading(WORKED, {}, 200), 5)["flops_at_least"] is False
    assert totals.of_work(WorkReading(), 5)["flops"] == 0
    assert "flops_at_least" not in totals.of_work(None, 5)


def test_sums_of_rows_are_bounds_as_soon_as_one_row_is() -> None:
    """All rows: 200 FLOPs of those that know any."""
    by_tower = ledger.sums(found().values(), lambda row: row.tower)
    assert (by_tower["language"].flops, by_tower["language"].at_least) == (100, True)
    assert (by_tower["vision"].flops, by_tower["vision"].at_least) == (100, True)
    assert not ledger.sums([found()[BLOCK0.name, Phase.VISION]], lambda row: row.tower)["vision"].at_least


def test_books_that_miss_nothing_have_no_mark() -> None:
    """As before: every line a figure."""
    column = ledger.close(LAYERS, SPANS, WorkReading(WORKED, {}, 200)).flops
    assert (column.not_counted, column.at_least) == ({}, ())
    assert (column.layers, column.rest) == (200, {"merger": 0, "language norm": 0})
    assert not_counted.warning(column) is None
    assert not_counted.by_row(None) == {}


def test_the_warning_is_a_sentence_with_every_operator() -> None:
    """Three places are named before the rest is counted; the phases of one layer are one place."""
    places = {"a decode": 1, "a prefill": 1, "b decode": 1, "c decode": 1, "d decode": 1, "e decode": 1}
    missing = {
        "x::f": NotCounted(calls=6, share=0.25, places=places),
        "x::g": NotCounted(calls=1, places={" decode": 1}),
    }
    assert not_counted.told(missing) == (
        "6 calls of x::f in a, b, c and 2 more (25.0 % of the time); 1 call of x::g in the model have no formula"
    )
    assert not_counted.told({"x::f": NotCounted(calls=2, share=0.0002)}) == (
        "2 calls of x::f (<0.1 % of the time) have no formula"
    )
    column = ledger.close(LAYERS, SPANS, WORK).flops
    assert not_counted.warning(column) == f"FLOPs are at least those given: {not_counted.told(column.not_counted)}."


def test_operators_that_nobody_saw_are_told_as_such() -> None:
    """They have no names; whether they have formulas nobody knows."""
    unseen = {
        NOT_WATCHED: NotCounted(calls=3, places={"a decode": 3}),
        ELSEWHERE: NotCounted(calls=1, places={"b prefill": 1}),
    }
    steps = "the operators of 3 steps in a were not watched"
    told = f"{steps}, and the operators of 1 call on another thread in b were not watched"
    assert not_counted.told(unseen) == told
    named = {"x::f": NotCounted(calls=1, places={"a decode": 1})}
    assert not_counted.told(named | unseen) == f"1 call of x::f in a has no formula, and {told}"
