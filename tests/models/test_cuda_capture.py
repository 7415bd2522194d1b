"""What is asked of torch to warm up and to capture, in which order, on a torch that only notes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from layerprof.models.cuda_capture import TorchCard

DEVICE = torch.device("cuda:1")


class Noting:
    """Streams, graphs and contexts of torch.cuda that note what is done with them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = Stream(self, "main")

    def take_the_place_of(self, patch: pytest.MonkeyPatch) -> None:
        """Stand for torch.cuda."""
        patch.setattr(torch.cuda, "Stream", lambda device: Stream(self, f"side of {device}"))
        patch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        patch.setattr(torch.cuda, "set_stream", self.set_stream)
        patch.setattr(torch.cuda, "stream", self.stream)
        patch.setattr(torch.cuda, "device", self.device)
        patch.setattr(torch.cuda, "graph", self.graph)
        patch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(self))

    def set_stream(self, stream: Stream) -> None:
        """Make a stream the current one."""
        self.current = stream

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        """Run on a stream."""
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def device(self, device: object) -> Iterator[None]:
        """Run on a device."""
        self.log.append(f"on {device}")
        yield

    @contextmanager
    def graph(self, graph: Graph, stream: Stream) -> Iterator[None]:
        """Capture; as torch does, leave the stream behind where the work raised."""
        self.current = stream
        self.log.append(f"begin on {stream.name}")
        yield
        self.log.append("end")
        self.current = Stream(self, "main")

    def work(self) -> str:
        """Note where it runs."""
        self.log.append(f"work on {self.current.name}")
        return "result"


class Stream:
    """A stream with a name."""

    def __init__(self, noting: Noting, name: str) -> None:
        self.noting, self.name = noting, name

    def wait_stream(self, other: Stream) -> None:
        """Note the wait."""
        self.noting.log.append(f"{self.name} waits for {other.name}")


class Graph:
    """A graph that notes its replays."""

    def __init__(self, noting: Noting) -> None:
        self.noting = noting

    def replay(self) -> None:
        """Note a replay."""
        self.noting.log.append("replay")


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> Noting:
    """Put the noting one in the place of torch.cuda."""
    made = Noting()
    made.take_the_place_of(monkeypatch)
    return made


def test_a_warm_up_runs_between_two_waits(noting: Noting) -> None:
    """On the card's own side stream, which waits for what was launched, and is waited for."""
    assert TorchCard(DEVICE).warmed(noting.work) == "result"
    side = "side of cuda:1"
    assert noting.log == [f"{side} waits for main", f"work on {side}", f"main waits for {side}"]
    assert noting.current.name == "main"


def test_a_capture_is_on_the_same_stream_and_device(noting: Noting) -> None:
    """And what it gives replays the graph."""
    replay, result = TorchCard(DEVICE).captured(noting.work)
    assert result == "result"
    side = "side of cuda:1"
    assert noting.log == ["on cuda:1", f"begin on {side}", f"work on {side}", "end"]
    replay()
    assert noting.log[-1] == "replay"


def test_a_capture_that_fails_gives_the_stream_back(noting: Noting) -> None:
    """What comes after runs where it did before."""

    def fails() -> Any:
        raise RuntimeError("not permitted")

    with pytest.raises(RuntimeError, match="not permitted"):
        TorchCard(DEVICE).captured(fails)
    assert noting.current.name == "main"


def test_an_event_of_a_graph_is_one_that_the_graph_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """`external`: any other would be an order of streams in a capture, and have no time."""
    from layerprof.hooks.event_pool import TorchCuda

    asked: list[dict[str, bool]] = []
    monkeypatch.setattr(torch.cuda, "Event", lambda **options: asked.append(options))
    TorchCuda().event_of_graph()
    assert asked == [{"enable_timing": True, "external": True}]
