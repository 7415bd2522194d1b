"""What other programs took of the processors, from counters of known content."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from layerprof.machine import other_load
from layerprof.machine.other_load import Moment

STAT = """cpu  1000 20 300 90000 500 7 30 43 11 0
cpu0 500 10 150 45000 250 3 15 21 5 0
cpu1 500 10 150 45000 250 4 15 22 6 0
intr 12345
"""
TICKS_S = 1 / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not psutil.LINUX, reason="the file is Linux's")
def test_busy_is_all_but_idle_and_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """User 1000 + nice 20 + system 300 + irq 7 + softirq 30 + steal 43 ticks; the 11 of guests are in user already."""
    (tmp_path / "stat").write_text(STAT)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    moment = other_load.now()
    assert moment is not None
    assert moment.busy_s == pytest.approx(1400 * TICKS_S)
    assert moment.processors == os.cpu_count()


def test_a_system_that_tells_fewer_kinds_of_time_is_read() -> None:
    """MacOS has no steal and no interrupts of its own: user 10 + nice 1 + system 3."""
    times = SimpleNamespace(user=10.0, nice=1.0, system=3.0, idle=900.0)
    assert other_load.busy_seconds(times) == 14.0


def test_a_system_without_the_counters_tells_no_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather no figure than a wrong one: a container may hide the file."""

    def hidden() -> None:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(psutil, "cpu_times", hidden)
    assert other_load.now() is None


def test_what_is_not_ours_is_others() -> None:
    """In 10 s of two processors 15 s were busy and 9 of them ours: others took 6 of 20."""
    before, after = Moment(100.0, 5.0, 50.0, 2), Moment(115.0, 14.0, 60.0, 2)
    assert other_load.others(before, after) == pytest.approx(0.3)


def test_ticks_that_run_late_are_no_negative_load() -> None:
    """Our own time is counted finer than the machine's, and can be ahead of it."""
    assert other_load.others(Moment(100.0, 5.0, 50.0, 2), Moment(101.0, 6.1, 51.0, 2)) == 0.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, Moment(1.0, 1.0, 9.0, 2)),
        (Moment(1.0, 1.0, 9.0, 2), None),
        (Moment(1.0, 1.0, 9.0, 2), Moment(1.2, 1.2, 9.2, 2)),
    ],
)
def test_what_cannot_be_told_is_none(before: Moment | None, after: Moment | None) -> None:
    """A system without the counters, or a stretch too short for them."""
    assert other_load.others(before, after) is None


def test_a_busy_machine_is_told_once_with_its_worst() -> None:
    """Below the limit nothing is said."""
    assert other_load.remark({}) is None
    assert other_load.remark({"bare": 0.14, "latency": 0.05}) is None
    said = other_load.remark({"bare": 0.1, "latency": 0.4})
    assert said is not None
    assert "40 %" in said
    assert said.endswith("quiet machine.")


def test_a_block_is_watched_also_when_it_raises() -> None:
    """The share of what was finished is kept."""
    found: dict[str, float] = {}
    moments: Iterator[Moment] = iter([Moment(0.0, 0.0, 0.0, 4), Moment(8.0, 4.0, 2.0, 4)])
    with pytest.raises(KeyboardInterrupt), other_load.watched(found, "bare", lambda: next(moments)):
        raise KeyboardInterrupt
    assert found == {"bare": 0.5}


@pytest.mark.skipif(other_load.now() is None, reason="the system does not tell how busy it is")
def test_a_program_beside_us_is_seen() -> None:
    """One that computes for a second while we sleep takes most of one processor."""
    found: dict[str, float] = {}
    with other_load.watched(found, "bare"):
        end = time.monotonic() + 1.0
        subprocess.run([sys.executable, "-c", f"import time\nwhile time.monotonic() < {end}: pass"], check=True)
    assert found["bare"] > 0.3 / (os.cpu_count() or 1)
