"""What a walk gets done in a second, by hand counts."""

from __future__ import annotations

from layerprof.books import throughput
from layerprof.readings import Generated, Walked
from layerprof.records import RequestColumn


def _walked(rows: int, seconds: float, *new_tokens: int) -> Walked:
    generated = Generated(("",) * rows, ((),) * rows, new_tokens, (False,) * rows, None, ())
    return Walked(rows, seconds, generated)


WALK = [_walked(2, 1.0, 5, 3), _walked(1, 3.0, 8)]


def _request(total: float | None) -> RequestColumn:
    return RequestColumn(read=1.0, process=1.0, copy=0.5, generate=4.0, residual=0.0, total=total)


def test_samples_are_over_whole_requests_and_tokens_over_the_writing() -> None:
    """Three samples in 6.5 s from the file on, of which generate() took 4 s for 16 tokens."""
    assert throughput.of(WALK, _request(6.5)) == {"samples_per_s": 3 / 6.5, "output_tokens_per_s": 4.0}


def test_requests_that_nobody_timed_have_no_rate() -> None:
    """Samples over the time of generate() alone would be another figure under the same name."""
    for request in (None, _request(None)):
        assert throughput.of(WALK, request) == {"samples_per_s": None, "output_tokens_per_s": 4.0}


def test_a_walk_without_a_batch_has_no_rate() -> None:
    """Nothing over nothing is not 0 a second."""
    assert throughput.of([], _request(0.0)) == {"samples_per_s": None, "output_tokens_per_s": None}
