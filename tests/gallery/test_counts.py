"""The FLOPs of every exhibit that somebody counted by hand."""

from __future__ import annotations

import pytest

from gallery.exhibit import EXHIBITS
from gallery.hall import NAMES, marked
from gallery.known import COUNTS
from gallery.run import run

COUNTING = ("default", "together", "rerun")


@pytest.mark.parametrize(("name", "mode"), marked(COUNTS, *COUNTING))
def test_flops_are_those_of_the_hand_count(name: str, mode: str) -> None:
    """Exactly, and the books close; what may miss something names it, and never counts too much."""
    exhibit = EXHIBITS[name]()
    if exhibit.flops is None or (mode == "rerun" and not exhibit.again):
        pytest.skip(exhibit.no_count or "a repeat of these calls cannot be harmless")
    profiler = run(exhibit, mode).profiler
    assert profiler is not None
    books, missed = profiler.run.ledger.flops, profiler.run.uncounted_ops
    may_miss = exhibit.partly or (mode == "rerun" and books.total is None)  # a repeat that might harm is not made
    if may_miss and (missed or books.total is None):
        assert (books.total or 0) <= exhibit.flops
        assert books.total is not None or books.reason
        return
    assert (books.total, missed) == (exhibit.flops, {})
    assert books.residual == 0


def test_known_failures_are_of_counted_exhibits() -> None:
    """An entry of an exhibit without a count would hide nothing."""
    assert {name for name, _ in COUNTS} <= {name for name in NAMES if EXHIBITS[name]().flops is not None}
    assert {mode for _, mode in COUNTS} <= {*COUNTING, "*"}
