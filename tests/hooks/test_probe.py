"""The probe of a profiler, on profilers whose faults are known: lost records, stray work, a slow aftermath."""

from __future__ import annotations

import json

import pytest
from fake_profiler import LAUNCHES, FakeProfiler, probed
from layerprof.hooks.probe import probe, short_kernels

from layerprof.trace.probe import Probe, slower, told


class TestSound:
    """A profiler without faults."""

    def test_it_is_trusted(self) -> None:
        """Every launch has its record in all five sessions; the ones ahead of the work are not counted with it."""
        found = probed(FakeProfiler())
        assert [(one.ours, one.launches, one.lost, one.orphans) for one in found.sessions] == [
            (False, LAUNCHES, 0, 0),
            (False, LAUNCHES, 0, 0),
            (False, LAUNCHES, 0, 0),
            (True, LAUNCHES, 0, 0),
            (True, LAUNCHES, 0, 0),
        ]
        assert found.trusted
        assert told(found).startswith("traces can be trusted: 80 launches in 2 recordings, none lost; ")
        assert not slower(found)

    def test_the_gpu_idles_before_each_recording_and_the_whole_takes_ten_seconds(self) -> None:
        """Records are lost after idling; a doctor has no more time."""
        profiler = FakeProfiler()
        before = profiler.clock.now()
        probed(profiler)
        assert 5 * 1.0 < profiler.clock.now() - before < 10.0


class TestLosing:
    """A profiler that loses the first records of each session, one more in each, as CUPTI of CUDA 13."""

    def test_ours_lose_nothing_where_others_do(self) -> None:
        """Sessions 1 to 3 lose 2, 4 and 6 records; ours lose 8 and 10 of the launches that were made for it."""
        found = probed(FakeProfiler(per_session=2))
        assert found.lost(ours=False) == (2, 4, 6)
        assert found.lost(ours=True) == (0, 0)
        assert [one.warm_up_lost for one in found.sessions if one.ours] == [8, 10]
        assert found.trusted
        assert "none lost (without launches ahead of them: 2, 4, 6)" in told(found)

    def test_where_ours_lose_too_traces_are_not_trusted(self) -> None:
        """20 records a session: 16 of the fourth session's own, and all of the fifth's but four."""
        found = probed(FakeProfiler(per_session=20))
        assert found.lost(ours=True) == (16, 36)
        assert not found.trusted
        assert "of 80 launches in 2 recordings 52 were lost" in told(found)

    def test_a_profiler_that_records_nothing_is_said_to(self) -> None:
        """CUPTI held by another, or not permitted."""
        found = probed(FakeProfiler(blind=True))
        assert not found.trusted
        assert found.seen == 0
        assert told(found) == "work ran and none of it was recorded"

    def test_kernels_without_a_launch_are_told(self) -> None:
        """Three in each session."""
        found = probed(FakeProfiler(stray=3))
        assert [one.orphans for one in found.sessions] == [3] * 5
        assert not found.trusted
        assert "6 kernels have no launch" in told(found)


class TestAftermath:
    """What a recording leaves behind."""

    @pytest.mark.parametrize(("slows", "much"), [(0.0, False), (0.04, False), (0.15, True)])
    def test_the_slowdown_is_that_of_the_same_work_afterwards(self, slows: float, much: bool) -> None:
        """CUPTI stays attached: the work takes so much longer, against two times before."""
        found = probed(FakeProfiler(slows=slows))
        assert found.slowdown() == pytest.approx(slows)
        assert found.noise() == pytest.approx(0, abs=1e-9)
        assert slower(found) == much
        assert f"work takes {100 * slows:+.0f} %" in told(found)

    def test_a_slowdown_within_the_noise_is_none(self) -> None:
        """Two times before that differ by 10 % make 15 % afterwards no finding."""
        found = probed(FakeProfiler(slows=0.15))
        noisy = Probe(found.device, None, (0.0095, 0.0105), found.sessions)
        assert not slower(noisy)

    def test_the_setting_that_takes_cupti_away_is_noted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Figures with and without it must not be mixed up."""
        monkeypatch.setenv("TEARDOWN_CUPTI", "1")
        found = probed(FakeProfiler())
        assert found.facts()["teardown"] == "1"
        assert json.loads(json.dumps(found.facts()))["trusted"] is True


def test_on_a_cpu_the_same_runs_and_finds_no_launches() -> None:
    """A dress rehearsal with torch's own profiler: real recordings, of which none has GPU work."""
    found = probe("cpu", short_kernels("cpu"), sessions=(False, True), idle_s=0.0)
    assert [one.launches for one in found.sessions] == [0, 0]
    assert found.bare_s[0] > 0
    assert not found.trusted
