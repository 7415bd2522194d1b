"""Several processes' traces in one file: their correlation ids are the same, and each device is of one process."""

from __future__ import annotations

from typing import Any

from attributions import selves
from scenario import Event, Scenario
from traces_graphs import Node, replay

from layerprof.trace.attribute import attribute


def rank(number: int, kernels: int, first: int = 1) -> Scenario:
    """Return the trace of a rank: a layer of its own launches kernels of 5 us, plus 1 us a rank, late and at length."""
    s = Scenario(correlations=first - 1)
    owner = (f"layer of {number}", "decode")
    s.layer(owner[0], 0, 1000, pid=100 + number)
    for kernel in range(kernels):
        s.kernel(10 * kernel + 1, 5000 + 10 * kernel, 5 + number, owner, pid=100 + number)
        s.events[-1]["pid"] = number
    return s


def together(*ranks: Scenario) -> tuple[list[Event], dict[Any, float]]:
    """Return the events of all ranks, and where their time belongs."""
    events = [event for s in ranks for event in s.events]
    return events, {label: us for s in ranks for label, us in s.self_us.items()}


def test_ranks_that_were_merged_with_a_prefix_are_told_apart_by_it() -> None:
    """As SGLang merges them: `[TP01] 101` launches what runs on `[TP01] 1`, and nothing is unsure."""
    ranks = [rank(number, 4) for number in range(3)]
    for number, s in enumerate(ranks):
        for event in s.events:
            event["pid"] = f"[TP{number:02}] {event['pid']}"
    events, due = together(*ranks)
    result = attribute(events)
    assert selves(result) == due
    assert (result.launched_not_recorded, result.remarks) == (0, ())


def test_graphs_of_merged_ranks_are_each_their_own() -> None:
    """Two launches with one id, on two ranks."""
    ranks = []
    for number in range(2):
        s = Scenario()
        replay(s, [Node("gemm", "graph launch")] * 3, 100)
        for event in s.events:
            event["pid"] = f"[DP{number}] {event['pid']}"
        ranks.append(s)
    (use,) = attribute(together(*ranks)[0], infer=False).graphs
    assert (use.replays, use.pieces) == (2, 3)


def test_a_device_belongs_to_the_process_that_launched_what_has_an_id_of_its_own() -> None:
    """Most ids collide; those that do not tell whose device it is."""
    events, due = together(rank(0, 6), rank(1, 9))
    # The last three ids are of the second alone: its device is known, and so the first is the other's.
    result = attribute(events)
    assert selves(result) == due
    assert result.remarks == ()


def test_where_nothing_tells_the_guess_is_said() -> None:
    """All ids collide: the first device is taken for the first process's."""
    events, due = together(rank(0, 4), rank(1, 4))
    result = attribute(events)
    assert selves(result) == due
    assert "8 kernels are those of launches in several processes" in result.remarks[0]


def test_processes_with_ids_of_their_own_need_no_guess() -> None:
    """Ids that do not collide."""
    events, due = together(rank(0, 4), rank(1, 4, first=100))
    result = attribute(events)
    assert selves(result) == due
    assert result.remarks == ()


def test_processes_without_a_number_are_processes() -> None:
    """Events of three ranks, one of which says neither its process nor its device; nothing is lost, or an error."""
    ranks = [rank(number, 2) for number in range(3)]
    for event in ranks[0].events:
        event["pid"] = None
    events, due = together(*ranks)
    assert sum(selves(attribute(events)).values()) == sum(due.values())
