"""Making one captured call for seconds on end: weights in turn, inputs put back, the host never far ahead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from layerprof.hooks.energy.capture import Captured
from layerprof.hooks.energy.state import difference, outputs
from torch import nn

from layerprof.energy.instruments import Clock
from layerprof.errors import described

SAME = 1e-3
"""Largest difference between a replayed output and the original, over the original's largest value."""

CHUNK_S = 0.02
AHEAD = 2
"""Chunks of calls that the host may be ahead of its device."""


class Loop:
    """Calls one captured call for as long as it is told; `modules` are its module and copies of it."""

    def __init__(self, captured: Captured, modules: Sequence[nn.Module], device: str, clock: Clock) -> None:
        self.captured = captured
        self.modules = tuple(modules)
        self.clock = clock
        self._device = device if device.startswith("cuda") and torch.cuda.is_available() else None
        self._next = 0
        self._chunk = 1
        self._call_s = 0.0
        self._marks: list[Any] = []

    def call(self) -> Any:
        """Make the call once and return what it gives."""
        args, kwargs = self.captured.inputs.fresh()
        module = self.modules[self._next]
        self._next = (self._next + 1) % len(self.modules)
        return module(*args, **kwargs)

    def calibrate(self) -> None:
        """Find how many calls take about `CHUNK_S`, after one call that warms up."""
        self.call()
        self.wait()
        start = self.clock.now()
        self.call()
        self.wait()
        self._call_s = self.clock.now() - start
        self._chunk = max(1, int(CHUNK_S / max(1e-7, self._call_s)))

    def run(self, seconds: float) -> int:
        """Make calls for about `seconds` and return how many."""
        end, count = self.clock.now() + seconds, 0
        while self.clock.now() < end:
            for _ in range(self._chunk):
                self.call()
            count += self._chunk
            self._pace()
        return count

    def wait(self) -> None:
        """Wait until the device has done all calls."""
        if self._device is not None:
            torch.cuda.synchronize(self._device)

    def drain(self) -> bool | None:
        """Wait likewise, and return whether the device had waited for its host; None where the host is the device.

        A device that is slower than its host has `AHEAD` chunks still to do when a run ends, one that is faster less
        than one call. A chunk lies between the two, however much a call alone, as `calibrate` timed it, takes more.
        """
        if self._device is None:
            return None
        start = self.clock.now()
        self.wait()
        return self.clock.now() - start < self._chunk * self._call_s

    def _pace(self) -> None:
        """Keep the host at most `AHEAD` chunks ahead of the device: a long queue would outlast its window."""
        if self._device is None:
            return
        mark = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types here
        mark.record(torch.cuda.current_stream(self._device))
        self._marks.append(mark)
        if len(self._marks) > AHEAD:
            self._marks.pop(0).synchronize()


def verify(captured: Captured, device: str, clock: Clock) -> str | None:
    """Check that the call gives again what it gave in the model; return why it does not, None where it does.

    Three calls in a row: state that grows shows from the second on. Where putting references back is not enough, the
    contents of caches are copied back from then on (`CallInputs.copies_state`).
    """
    try:
        worst = _worst(captured, device, clock)
        if worst > SAME:
            captured.inputs.copy_everything()
            worst = _worst(captured, device, clock)
    except Exception as error:
        # Whatever a model's own code throws when it is called outside its model: no figure, with that reason.
        return f"it cannot be called on its own ({described(error)})"
    if worst <= SAME:
        return None
    return f"its replayed output differs from the original by {worst:.2g} of its size, so it is not the same call"


def _worst(captured: Captured, device: str, clock: Clock) -> float:
    loop = Loop(captured, (captured.module,), device, clock)
    return max(difference(outputs(loop.call()), captured.output) for _ in range(3))
