"""Progress: plain lines where nobody watches, nothing from Python."""

from __future__ import annotations

import re

import pytest

from layerprof.measure.progress import Plain, Silent


def test_plain_prints_one_line_per_stage() -> None:
    """Title, steps done of steps planned, and seconds."""
    lines: list[str] = []
    plain = Plain(lines.append)
    plain.note("model: demo")
    with plain.stage("bare", 3) as advance:
        advance()
        advance()
    assert lines[0] == "model: demo"
    assert re.fullmatch(r"bare: 2/3 in \d+\.\d s", lines[1])


def test_a_stage_that_is_cut_short_says_how_far_it_came() -> None:
    """An interrupt still prints what was done."""
    lines: list[str] = []

    def work() -> None:
        with Plain(lines.append).stage("flops", 9) as advance:
            advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert lines[0].startswith("flops: 1/9")


def test_silent_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A library call prints nothing."""
    silent = Silent()
    silent.note("model: demo")
    with silent.stage("bare", 3) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
