"""A session of the profiler: what is done around it so that nothing is missing, on a GPU that is not there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from layerprof.hooks import recording
from layerprof.hooks.recording import LEAST_WARM_UP, Recording

from layerprof.machine.internals import range_class
from layerprof.trace.attribute import attribute
from layerprof.trace.events import WARM_UP


class FakeMark:
    """A tensor on a GPU that is not there; adding to it is a launch."""

    def __init__(self, gpu: FakeGpu, device: str) -> None:
        self.gpu, self.device = gpu, device

    def add_(self, _: int) -> None:
        """Launch."""
        self.gpu.log.append(f"launch on {self.device}")


class FakeGpu:
    """Logs what is done to it, in order, in place of torch's profiler and its GPUs."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def start(self) -> None:
        """Begin a session, with the warning that torch gives."""
        warnings.warn("Warning: Profiler clears events at the end of each cycle.Only events ...", stacklevel=1)
        self.log.append("start")

    def stop(self) -> None:
        """End it."""
        self.log.append("stop")

    def range(self, name: str) -> FakeGpu:
        """Open a range."""
        self.log.append(name)
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.log.append("end of range")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Put a fake in place of GPUs and profiler; no session has begun yet."""
    fake = FakeGpu()
    monkeypatch.setattr(recording, "_profiler", lambda kind: fake)
    monkeypatch.setattr(recording, "_mark", lambda device: FakeMark(fake, device))
    monkeypatch.setattr(recording, "range_class", lambda: fake.range)
    monkeypatch.setattr(recording, "SESSIONS", {"cuda": 0, "cpu": 0})
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: fake.log.append(f"wait for {device}"))
    return fake


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the log level as it was."""
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
    yield
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)


class TestOnAGpu:
    """What happens around a session whose kernels matter."""

    def test_launches_to_be_lost_come_first(self, gpu: FakeGpu) -> None:
        """An idle GPU, the start, 64 launches inside a range that attribution leaves out, an idle GPU again."""
        Recording(["cuda:0"]).start()
        assert gpu.log == [
            "wait for cuda:0",
            "start",
            WARM_UP,
            *["launch on cuda:0"] * LEAST_WARM_UP,
            "end of range",
            "wait for cuda:0",
        ]

    def test_every_gpu_of_the_model_gets_its_own(self, gpu: FakeGpu) -> None:
        """Records are lost per GPU."""
        Recording(["cuda:0", "cuda:1"]).start()
        assert [gpu.log.count(f"launch on cuda:{n}") for n in range(2)] == [LEAST_WARM_UP] * 2

    def test_their_number_grows_with_the_sessions_of_the_process(self, gpu: FakeGpu) -> None:
        """Session k loses about k records, so a sweep's hundredth session needs more than its first."""
        for _ in range(100):
            Recording(["cuda:0"]).start()
        assert recording.sessions() == 100
        assert gpu.log[::-1].index("start") > 100

    def test_without_them_what_is_lost_shows(self, gpu: FakeGpu) -> None:
        """A probe asks for a session as torch makes it."""
        Recording(["cuda:0"], warm_up=False).start()
        assert gpu.log == ["wait for cuda:0", "start"]

    def test_cuptis_errors_are_printed(self, gpu: FakeGpu) -> None:
        """On a GPU the log tells; on a CPU, where every start would be an error, it does not. A user's level stays."""
        Recording().start()
        assert os.environ["KINETO_LOG_LEVEL"] == "99"
        Recording(["cuda:0"]).start()
        assert os.environ["KINETO_LOG_LEVEL"] == "4"
        os.environ["KINETO_LOG_LEVEL"] = "3"
        Recording(["cuda:0"]).start()
        assert os.environ["KINETO_LOG_LEVEL"] == "3"

    def test_torchs_warning_about_later_sessions_is_not_passed_on(self, gpu: FakeGpu) -> None:
        """Each session is exported before the next one begins, so nothing is lost; other warnings are not touched."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            Recording(["cuda:0"]).start()
        assert seen == []


def test_on_a_cpu_there_is_nothing_to_lose(gpu: FakeGpu) -> None:
    """No launches, no waiting, and no session that would leave CUPTI attached."""
    Recording().start()
    assert gpu.log == ["start"]
    assert (recording.sessions(), recording.sessions("cpu")) == (0, 1)


def test_a_real_session_makes_no_objects_of_its_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping and exporting cost what the file costs: torch's list of Python events is never built."""
    made: list[Any] = []

    def listed(events: Any, **_: Any) -> Any:
        made.append(events)
        return events

    monkeypatch.setattr(torch.autograd.profiler, "EventList", listed)
    session = Recording()
    session.start()
    torch.ones(8, 8) @ torch.ones(8, 8)
    session.stop()
    session.export(tmp_path / "trace.json")
    assert made == []
    assert "aten::mm" in (tmp_path / "trace.json").read_text()


def test_launches_of_a_real_session_are_left_out_by_attribution(tmp_path: Path) -> None:
    """The range that is opened around them is the one that attribution looks for, whichever class opens it."""
    for number, opened in enumerate((range_class(), torch.profiler.record_function)):
        session = Recording()
        session.start()
        with opened(WARM_UP):
            torch.ones(8).add_(1)
        session.stop()
        path = tmp_path / f"{number}.json"
        session.export(path)
        result = attribute(path)
        assert WARM_UP not in {row.name for row in result.rows}
