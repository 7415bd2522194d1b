"""The books of the request: parts, residual and wall time by hand."""

from __future__ import annotations

import pytest

from layerprof.books import request
from layerprof.readings import Generated, Made, Walked


def walked(seconds: float, wall_s: float | None, first: float | None = 0.5) -> Walked:
    """Answer one row in so many seconds."""
    return Walked(1, seconds, Generated(("a",), ((1,),), (1,), (False,), first, ()), wall_s)


MADE = [Made(0.1, 0.2, 0.03, 0.35), Made(0.3, 0.4, 0.05, 0.75)]
BARE = [walked(1.0, 1.1), walked(2.0, 2.2)]


def test_parts_and_residual_are_the_wall_time() -> None:
    """Walls 0.35 + 1.1 + 0.75 + 2.2 = 4.4; parts 0.4 + 0.6 + 0.08 + 3.0 = 4.08; what is left is 0.32."""
    column = request.close(MADE, BARE)
    assert (column.read, column.process, column.copy, column.generate) == pytest.approx((0.4, 0.6, 0.08, 3.0))
    assert column.total == pytest.approx(4.4)
    assert column.residual == pytest.approx(0.32)
    assert column.reason is None


def test_medians_are_of_batches() -> None:
    """Each part's median over two batches is their mean."""
    totals = request.totals(MADE, BARE)
    assert totals is not None
    parts = (totals.read, totals.process, totals.copy, totals.generate)
    assert [part.median for part in parts] == pytest.approx([0.2, 0.3, 0.04, 1.5])


def test_the_first_token_is_reached_after_the_batch_is_made() -> None:
    """From the file on: all of the making, then the time inside generate(); without that time there is none."""
    assert request.to_first_token(MADE, BARE) == pytest.approx([0.85, 1.25])
    assert request.to_first_token(MADE, [walked(1.0, 1.1, None), BARE[1]]) == pytest.approx([1.25])


def test_an_interrupted_walk_closes_over_what_was_answered() -> None:
    """A batch that was made and not answered is in no sum."""
    assert request.close(MADE, BARE[:1]).total == pytest.approx(0.35 + 1.1)


def test_what_was_not_timed_is_none_with_its_reason() -> None:
    """Batches that were made elsewhere."""
    assert request.totals([], BARE) is None
    column = request.close([], BARE)
    assert column.total is None
    assert column.reason == request.NOT_TIMED
