"""Peak memory of a pass: what the device's allocator held at most; on a CPU the process's resident set."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch


class MemoryHook:
    """Reads the peak memory of what runs inside `with hook:`, in bytes.

    On CUDA the most that torch's allocator had handed out (weights included, other processes not), summed over the
    GPUs. On a CPU the process's largest resident set since it started, so it also holds whatever came before the pass;
    where the platform has no such counter the reading is None and `reason` says so.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = str(device)
        self.reason: str | None = None
        self._peak: int | None = None

    def __enter__(self) -> Self:
        if self.device.startswith("cuda"):
            import torch

            for index in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(index)
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

    def _resident_peak(self) -> int | None:
        try:
            import resource
        except ImportError:
            self.reason = "this platform does not count a process's peak memory"
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
        return peak if sys.platform == "darwin" else peak * 1024
