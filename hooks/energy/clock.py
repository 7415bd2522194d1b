"""Host time, and doing something again and again beside the measured loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from layerprof.energy.instruments import Clock


class HostClock(Clock):
    """The machine's monotonic clock; repetition runs in a daemon thread.

    Sensors release the interpreter while they read (a counter read takes milliseconds), so the thread costs the
    measured loop the interpreter only for the moments between.
    """

    def now(self) -> float:
        """Return `time.perf_counter()`."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def repeat(self, action: Callable[[], float]) -> Callable[[], None]:
        """Call `action` in a thread until stopped; stopping waits for a call under way."""
        stopped = threading.Event()

        def loop() -> None:
            wait = 0.0
            while not stopped.wait(wait):
                wait = action()

        thread = threading.Thread(target=loop, name="layerprof-sensor", daemon=True)
        thread.start()

        def stop() -> None:
            stopped.set()
            thread.join(timeout=5)

        return stop
