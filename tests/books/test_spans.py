"""A log of starts and ends to spans and gaps, on logs written by hand: what nests, what is lost, what lies between."""

from __future__ import annotations

from typing import Any

import pytest

from layerprof.books.spans import NOT_RECORDED, BatchLog, read
from layerprof.readings import Layer, SpanReading
from layerprof.records import Phase

OUTER, INNER, BLOCK, EMBED, HEAD, ASKED = range(6)
LAYERS = (
    Layer("outer", "language", "other", 0),
    Layer("inner", "language", "other", 1),
    Layer("layers.0", "language", "decoder_layer", 0),
    Layer("embed", "language", "embed_tokens", 0),
    Layer("head", "language", "lm_head", 0),
    Layer("layers.0.mlp", "language", "module", 0),
)
PREFILL, DECODE = Phase.PREFILL, Phase.DECODE


def start(slot: int, at: int, phase: Phase = PREFILL, step: int = 0) -> list[Any]:
    """Return the entry of a layer's start."""
    return [slot, phase, step, at]


def end(slot: int, at: int, phase: Phase = PREFILL, step: int = 0) -> list[Any]:
    """Return the entry of a layer's end."""
    return [~slot, phase, step, at]


def call(slot: int, begin: int, finish: int, phase: Phase = PREFILL, step: int = 0) -> list[Any]:
    """Return both, with nothing between them."""
    return [*start(slot, begin, phase, step), *end(slot, finish, phase, step)]


def reading(*entries: list[Any], length: int = 100) -> SpanReading:
    """Read one window whose log has these entries."""
    return read([BatchLog(length, length, [part for entry in entries for part in entry])], LAYERS, "fake")


def nanoseconds(found: SpanReading) -> dict[str, tuple[int, int, int]]:
    """Start, end and own time of each layer's only call."""
    assert len({s.layer for s in found.spans}) == len(found.spans)
    return {s.layer: (round(s.start_s * 1e9), round(s.end_s * 1e9), round(s.self_s * 1e9)) for s in found.spans}


def gaps(found: SpanReading) -> dict[str, int]:
    """Gaps by name."""
    return {name: round(seconds * 1e9) for name, seconds in found.gaps_s.items()}


def test_layers_inside_each_other_have_each_moment_once() -> None:
    """A block of 60 ns around one of 30 ns around one of 10: 30, 20 and 10 of their own; one gap on either side."""
    found = reading(start(OUTER, 20), start(INNER, 30), call(BLOCK, 35, 45), end(INNER, 60), end(OUTER, 80))
    assert nanoseconds(found) == {"outer": (20, 80, 30), "inner": (30, 60, 20), "layers.0": (35, 45, 10)}
    assert gaps(found) == {"before the first layer": 20, "after the last layer": 20}
    assert found.dropped == 0


def test_calls_know_the_layers_around_them_outermost_first() -> None:
    """By what called what: the block is in the inner layer's call and in the outer's, each of which counts once."""
    found = reading(start(OUTER, 20), start(INNER, 30), call(BLOCK, 35, 45), end(INNER, 60), end(OUTER, 80))
    assert {s.layer: s.around for s in found.spans} == {
        "outer": (),
        "inner": ("outer",),
        "layers.0": ("outer", "inner"),
    }
    itself = reading(start(BLOCK, 0), start(BLOCK, 10), call(BLOCK, 20, 30), end(BLOCK, 40), end(BLOCK, 50))
    assert [s.around for s in itself.spans] == [(), ("layers.0",), ("layers.0",)]


def test_a_submodule_that_was_asked_for_is_timed_beside_the_books() -> None:
    """40 ns of a block's 60 ran in its MLP, and stay the block's; what ran in one outside layers stays a gap."""
    inside = reading(start(BLOCK, 20), call(ASKED, 30, 70), end(BLOCK, 80))
    assert nanoseconds(inside) == {"layers.0": (20, 80, 60), "layers.0.mlp": (30, 70, 0)}
    assert gaps(inside) == {"before the first layer": 20, "after the last layer": 20}
    alone = reading(call(EMBED, 0, 10), call(ASKED, 20, 50), call(BLOCK, 60, 100))
    assert gaps(alone) == {"within prefill": 50}


@pytest.mark.parametrize("lost", [False, True])
def test_a_submodule_around_layers_leaves_them_theirs(lost: bool) -> None:
    """One of 100 ns around a layer of 60 around one of 10: the outer has its 50, with a lost call before or without."""
    before = start(HEAD, 0) if lost else []
    found = reading(before, start(ASKED, 0), start(OUTER, 20), call(BLOCK, 30, 40), end(OUTER, 80), end(ASKED, 100))
    assert nanoseconds(found) == {"layers.0.mlp": (0, 100, 0), "outer": (20, 80, 50), "layers.0": (30, 40, 10)}
    assert gaps(found) == {"before the first layer": 20, "after the last layer": 20}


def test_a_submodule_between_layers_hands_on_what_ran_in_it() -> None:
    """A layer of 60 ns called a submodule of 40, which called a layer of 10: the outer layer's own are 50."""
    found = reading(start(OUTER, 20), start(ASKED, 30), call(BLOCK, 35, 45), end(ASKED, 70), end(OUTER, 80))
    assert nanoseconds(found) == {"outer": (20, 80, 50), "layers.0.mlp": (30, 70, 0), "layers.0": (35, 45, 10)}


def test_a_call_around_blocks_has_the_phase_of_its_first() -> None:
    """Its own was not known when it began: the step's first block tells it. What holds no block keeps what it said."""
    late = [*start(OUTER, 10), *start(ASKED, 15), *call(HEAD, 16, 18), *end(ASKED, 19)]
    blocks = [*call(BLOCK, 20, 30, DECODE, 3), *call(BLOCK, 30, 40, DECODE, 4), *end(OUTER, 50)]
    told = {(s.layer, s.phase, s.step) for s in reading(late, blocks).spans}
    assert {("outer", DECODE, 3), ("layers.0.mlp", PREFILL, 0), ("head", PREFILL, 0)} <= told


def test_a_layer_inside_itself_ends_its_inner_call_first() -> None:
    """A module that calls itself: 80 ns with 20 of them in the inner call."""
    found = reading(start(BLOCK, 10), call(BLOCK, 30, 50), end(BLOCK, 90))
    assert [(round(s.start_s * 1e9), round(s.self_s * 1e9)) for s in found.spans] == [(10, 60), (30, 20)]


def test_a_call_of_no_length_at_the_very_start_is_a_call() -> None:
    """Time 0 is a moment like any other, and so is a layer that took none."""
    found = reading(call(EMBED, 0, 0), call(BLOCK, 0, 100))
    assert nanoseconds(found) == {"embed": (0, 0, 0), "layers.0": (0, 100, 100)}
    assert (gaps(found), found.dropped) == ({}, 0)


def test_what_never_ended_is_dropped_and_what_ran_inside_stands_on_its_own() -> None:
    """Two layers were left without their ends, two calls inside them are whole: gaps lie around the whole ones."""
    found = reading(start(OUTER, 5), start(INNER, 6), call(BLOCK, 10, 30), call(HEAD, 40, 70))
    assert found.dropped == 2
    assert nanoseconds(found) == {"layers.0": (10, 30, 20), "head": (40, 70, 30)}
    assert gaps(found) == {"before the first layer": 10, "within prefill": 10, "after the last layer": 30}


def test_a_holder_that_ends_drops_what_was_left_open_inside_it() -> None:
    """The outer one's end closes it; the two inside it that never ended are lost, and their time is the outer one's."""
    found = reading(start(OUTER, 0), start(INNER, 10), start(HEAD, 20), call(BLOCK, 30, 40), end(OUTER, 100))
    assert found.dropped == 2
    assert nanoseconds(found) == {"outer": (0, 100, 90), "layers.0": (30, 40, 10)}
    assert gaps(found) == {}
    one = reading(start(OUTER, 0), start(INNER, 10), call(BLOCK, 30, 40), end(OUTER, 100))
    assert (one.dropped, nanoseconds(one)) == (1, nanoseconds(found))


def test_nesting_is_found_again_from_times_alone() -> None:
    """After a loss: one inside another, one after it that begins as that one ends, each with its own time."""
    found = reading(
        start(HEAD, 0), start(OUTER, 10), call(INNER, 20, 30), call(EMBED, 30, 35), end(OUTER, 50),
        call(BLOCK, 50, 80),
    )  # fmt: skip
    assert found.dropped == 1
    assert nanoseconds(found) == {
        "outer": (10, 50, 25),
        "inner": (20, 30, 10),
        "embed": (30, 35, 5),
        "layers.0": (50, 80, 30),
    }
    assert gaps(found) == {"before the first layer": 10, "after the last layer": 20}


def test_an_end_without_a_start_is_dropped() -> None:
    """A layer that was entered before the window opened; the others are as if it had not been there."""
    found = reading(end(OUTER, 5), call(BLOCK, 10, 30), end(INNER, 40))
    assert found.dropped == 2
    assert nanoseconds(found) == {"layers.0": (10, 30, 20)}


@pytest.mark.parametrize("times", [(NOT_RECORDED, 60), (20, NOT_RECORDED), (NOT_RECORDED, NOT_RECORDED)])
def test_a_boundary_that_could_not_be_recorded_drops_its_call(times: tuple[int, int]) -> None:
    """While a CUDA graph was captured there was no event; the call inside it that has both its times stays."""
    found = reading(start(OUTER, times[0]), call(BLOCK, 30, 40), end(OUTER, times[1]))
    assert found.dropped == 1
    assert nanoseconds(found) == {"layers.0": (30, 40, 10)}
    assert gaps(found) == {"before the first layer": 30, "after the last layer": 60}


def test_lost_calls_of_all_windows_are_counted() -> None:
    """Two in one, one in the other, none in the third."""
    logs = [[*start(OUTER, 1), *start(INNER, 2)], end(BLOCK, 3), call(BLOCK, 0, 10)]
    found = read([BatchLog(10, 10, log) for log in logs], LAYERS, "fake")
    assert found.dropped == 3
    assert [(s.layer, s.batch) for s in found.spans] == [("layers.0", 2)]
    assert gaps(found) == {"no layer ran": 20}


def test_calls_stand_in_the_order_of_their_starts() -> None:
    """Whatever ended first: of equal starts the one that was logged first."""
    found = reading(start(OUTER, 10), call(INNER, 10, 20), end(OUTER, 30), call(BLOCK, 40, 50))
    assert [s.layer for s in found.spans] == ["outer", "inner", "layers.0"]


def test_layers_at_the_same_time_on_two_streams_leave_no_gap() -> None:
    """20 to 60 and, after a loss, 40 to 90: only what no layer covers is a gap, though the first ended before."""
    found = reading(end(HEAD, 0), call(BLOCK, 20, 60), call(OUTER, 30, 40), call(EMBED, 95, 100))
    assert gaps(found) == {"before the first layer": 20, "within prefill": 35}


def test_gaps_are_named_by_what_lies_on_both_sides() -> None:
    """Between phases, between steps, within a step; before anything and after all."""
    found = reading(
        call(BLOCK, 5, 10), call(HEAD, 12, 15), call(BLOCK, 20, 30, DECODE, 1), call(HEAD, 33, 40, DECODE, 1),
        call(BLOCK, 45, 50, DECODE, 2), call(HEAD, 57, 60, DECODE, 2), length=71,
    )  # fmt: skip
    assert gaps(found) == {
        "before the first layer": 5,
        "within prefill": 2,
        "prefill to decode": 5,
        "within decode": 3 + 7,
        "between decode steps": 5,
        "after the last layer": 11,
    }


def test_a_step_begins_with_its_embedding() -> None:
    """The embedding, and what runs between it and the first block, bear the step of that block, which counts them."""
    found = reading(
        call(EMBED, 0, 1, DECODE, 0), call(HEAD, 2, 3, DECODE, 0), call(BLOCK, 4, 5, DECODE, 1),
        call(HEAD, 6, 7, DECODE, 1), call(EMBED, 8, 9, DECODE, 1), call(BLOCK, 10, 11, DECODE, 2),
        call(HEAD, 12, 13, DECODE, 2),
    )  # fmt: skip
    assert [s.step for s in found.spans] == [1, 1, 1, 1, 2, 2, 2]


def test_an_embedding_of_the_prefill_begins_no_step() -> None:
    """Nor does one that is followed by a prefill before any block of decode."""
    decode = call(EMBED, 4, 5, DECODE, 7), call(HEAD, 6, 7), call(BLOCK, 8, 9, DECODE, 1)
    found = reading(call(EMBED, 0, 1), call(BLOCK, 2, 3), *decode)
    assert [s.step for s in found.spans] == [0, 0, 7, 0, 1]


def test_windows_are_on_the_hosts_clock_and_gaps_on_the_logs() -> None:
    """250 ns of the host's, of which the log knows 100, 40 of them in a layer: 60 are a gap, 150 nobody's."""
    found = read([BatchLog(250, 100, call(BLOCK, 60, 100))], LAYERS, "fake")
    assert list(found.windows_s) == pytest.approx([250e-9])
    assert gaps(found) == {"before the first layer": 60}
    assert found.clock == "fake"


def test_a_log_that_is_cut_off_is_no_log() -> None:
    """Four figures make an entry."""
    with pytest.raises(ValueError, match="zip"):
        read([BatchLog(10, 10, call(BLOCK, 0, 10)[:-1])], LAYERS, "fake")
