"""Sums of rows hold nothing twice, whatever was asked for and whoever called whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from few_layers import LAYER0, LAYER0_MLP, LAYER1, LAYERS, NORM, span
from hypothesis import given
from hypothesis import strategies as st

from layerprof.books import ledger
from layerprof.books.rows import rows as layer_rows
from layerprof.books.shown import shown
from layerprof.readings import Layer, SpanReading, Work, WorkReading
from layerprof.records import Apart, LayerRow, Phase

DECODE = Phase.DECODE
TOWER = Layer("lm", "language", "module", 0)
EVERY = (*LAYERS, TOWER)


def reading(nested: dict[tuple[Layer, ...], int]) -> WorkReading:
    """Make a reading in which each chain of layers had one call with so many FLOPs."""
    chains = {tuple(layer.name for layer in chain): flops for chain, flops in nested.items()}
    return WorkReading(nested={(chain, DECODE): Work(1, flops) for chain, flops in chains.items()})


def asked(work: WorkReading, *selected: Layer) -> tuple[LayerRow, ...]:
    """Return the rows of the selected layers."""
    return shown(layer_rows(EVERY, work=work), selected, None, work)


def total(rows: tuple[LayerRow, ...]) -> int:
    """Return the FLOPs of all rows together."""
    return sum(found.flops or 0 for found in ledger.sums(rows, lambda row: row.kind).values())


def test_a_part_of_a_block_is_no_more_than_its_block() -> None:
    """100 FLOPs of which 70 in the MLP: 100 where the block is shown, 70 where the MLP is shown alone."""
    work = reading({(LAYER0,): 100, (LAYER0, LAYER0_MLP): 70})
    assert total(asked(work, LAYER0, LAYER0_MLP)) == 100
    assert total(asked(work, LAYER0_MLP)) == 70
    assert {row.name: row.flops for row in asked(work, LAYER0, LAYER0_MLP)} == {LAYER0.name: 100, LAYER0_MLP.name: 70}


def test_a_shared_layer_counts_where_no_other_shown_row_holds_it() -> None:
    """Called once by another layer, of whose 30 FLOPs 20 are its own, and once alone: 30 and the 20 alone."""
    work = reading({(LAYER0,): 30, (LAYER0, NORM): 20, (NORM,): 20})
    rows = asked(work, LAYER0, NORM)
    assert {row.name: row.flops for row in rows} == {LAYER0.name: 30, NORM.name: 40}
    assert total(rows) == 50
    assert total(asked(work, NORM)) == 40
    block, norm = rows
    assert block.apart is None
    assert norm.apart == Apart(calls=1, flops=20, bytes=0)


def test_a_submodule_around_layers_gives_way_to_them() -> None:
    """A tower's 100 FLOPs hold two layers of 40: where they are shown, they are what adds up."""
    work = reading({(TOWER,): 100, (TOWER, LAYER0): 40, (TOWER, LAYER1): 40})
    assert total(asked(work, TOWER, LAYER0, LAYER1)) == 80
    assert total(asked(work, TOWER)) == 100


def test_what_stands_inside_by_name_and_is_called_from_elsewhere_counts() -> None:
    """The MLP of a block that another calls, not the block: both rows add up, as they do with static names apart."""
    work = reading({(LAYER0,): 30, (LAYER0_MLP,): 70})
    assert total(asked(work, LAYER0, LAYER0_MLP)) == 100


def test_times_and_joules_are_those_of_the_same_calls() -> None:
    """A norm of 1 s inside a block's call and one of 3 s alone: 3 of its 4 s are apart, and so are 6 of its 8 J."""
    inside = replace(span(NORM, DECODE, 1, 2), around=(LAYER0.name,))
    spans = SpanReading((span(LAYER0, DECODE, 0, 5), inside, span(NORM, DECODE, 6, 9)), (9.0,), {}, "fake")
    rows = [row.model_copy(update={"energy_j": 8.0}) for row in layer_rows(EVERY, spans)]
    norm = shown(rows, (LAYER0, NORM), spans, None)[1]
    assert norm.apart is not None
    assert (norm.apart.calls, norm.apart.span_s, norm.apart.energy_j) == (1, 3.0, 6.0)
    found = ledger.sums(shown(rows, (LAYER0, NORM), spans, None), lambda row: row.phase)[DECODE]
    assert (found.calls, found.span_s, found.energy_j) == (2, 8.0, 14.0)


def test_a_row_has_the_name_that_it_was_asked_by() -> None:
    """A module under two names is one row, under the one that the user gave."""
    (row,) = asked(reading({(NORM,): 20}), replace(NORM, alias="lm.head.norm"))
    assert (row.name, row.flops) == ("lm.head.norm", 20)


@given(
    own=st.dictionaries(
        st.lists(st.sampled_from(EVERY), min_size=1, max_size=3, unique=True).map(tuple), st.integers(1, 99)
    ),
    selected=st.sets(st.sampled_from([layer for layer in LAYERS if layer.kind != "module"])),
)
def test_sums_of_found_layers_hold_each_call_s_work_once(
    own: dict[tuple[Layer, ...], int], selected: set[Layer]
) -> None:
    """Whatever found layers are shown: their sum is the work that ran inside any of them, by a count of its own."""
    nested: dict[tuple[Layer, ...], int] = {}
    for chain, flops in own.items():
        for length in range(1, len(chain) + 1):
            nested[chain[:length]] = nested.get(chain[:length], 0) + flops
    expected = sum(flops for chain, flops in own.items() if selected & set(chain))
    assert total(asked(reading(nested), *selected)) == expected


def test_rows_of_older_files_lie_inside_each_other_as_their_names_do() -> None:
    """They do not tell what called what."""
    work = reading({(LAYER0,): 100, (LAYER0_MLP,): 70})
    rows = tuple(row.model_copy(update={"apart": None}) for row in asked(work, LAYER0, LAYER0_MLP))
    assert total(rows) == pytest.approx(100)
