"""Peak memory of a pass: what the device's allocator held at most; on a CPU the process's resident set."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch


class MemoryHook:
    """Reads the peak memory of what runs inside `with hook:`, in bytes.

    On CUDA the most that torch's allocator had handed out (weights included, other processes not), summed over the
    GPUs. On a CPU the process's largest resident set meanwhile: Linux lets a process restart that counter (proc(5),
    `clear_refs`). Where it does not, the largest since the process started, which also holds whatever came before the
    pass; where the platform has no such counter the reading is None and `reason` says so.
    """

    _clear = Path("/proc/self/clear_refs")
    _status = Path("/proc/self/status")

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = str(device)
        self.reason: str | None = None
        self._peak: int | None = None
        self._restarted = False

    def __enter__(self) -> Self:
        if self.device.startswith("cuda"):
            import torch

            for index in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(index)
        else:
            self._restarted = self._restart_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peak = self._cuda_peak() if self.device.startswith("cuda") else self._resident_peak()

    def reading(self) -> int | None:
        """Return the peak in bytes, or None with `reason`."""
        return self._peak

    @staticmethod
    def _cuda_peak() -> int:
        import torch

        return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))

    def _restart_counter(self) -> bool:
        """Make the kernel forget the largest resident set so far; return whether it did."""
        try:
            self._clear.write_text("5")
        except OSError:
            return False
        return self._high_water() is not None

    def _high_water(self) -> int | None:
        """Return the kernel's largest resident set since the last restart; None where it tells none."""
        try:
            lines = self._status.read_text().splitlines()
        except OSError:
            return None
        found = next((line.split() for line in lines if line.startswith("VmHWM:")), None)
        return int(found[1]) * 1024 if found else None

    def _resident_peak(self) -> int | None:
        if self._restarted:
            return self._high_water()
        try:
            import resource
        except ImportError:
            self.reason = "this platform does not count a process's peak memory"
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
        return peak if sys.platform == "darwin" else peak * 1024
