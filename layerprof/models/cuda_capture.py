"""What a card does for a captured step: run work on the stream that captures, and capture it.

Written after torch's own `make_graphed_callables` and its documentation of CUDA graphs: warm-up and capture on a side
stream that waits for the current one, and that the current one waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Card(Protocol):
    """A device that captures; tests put a fake in its place."""

    def warmed(self, work: Callable[[], T]) -> T:
        """Run the work where it will be captured; what it gives can be used at once."""

    def captured(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Call the work without running what it launches; return what runs that, and what the work gave.

        The tensors in what it gave are filled by every replay.
        """


class TorchCard:
    """A CUDA device."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._torch: Any = torch  # graphs and streams are untyped there
        self._device = device
        self._stream = self._torch.cuda.Stream(device)

    def warmed(self, work: Callable[[], T]) -> T:
        """Run the work on the side stream."""
        cuda = self._torch.cuda
        here = cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with cuda.stream(self._stream):
            result = work()
        here.wait_stream(self._stream)
        return result

    def captured(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Capture the work; where that fails, torch's current stream is the one that it was before."""
        cuda = self._torch.cuda
        here, graph = cuda.current_stream(self._device), cuda.CUDAGraph()
        try:
            with cuda.device(self._device), cuda.graph(graph, stream=self._stream):
                result = work()
        except BaseException:
            # A capture that cannot be ended raises before torch has gone back to the stream it came from.
            cuda.set_stream(here)
            raise
        replay: Callable[[], None] = graph.replay
        return replay, result
