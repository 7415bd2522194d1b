"""Peak memory of a pass on a CPU."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from layerprof.hooks.memory import MemoryHook

BLOCK = 400_000_000


def peak(work: Callable[[], object], hook: MemoryHook | None = None) -> int:
    """Return what the hook reads of some work."""
    hook = hook or MemoryHook()
    with hook:
        work()
    reading = hook.reading()
    assert isinstance(reading, int)
    return reading


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux restarts the counter")
def test_a_pass_is_not_charged_for_what_was_freed_before_it() -> None:
    """A block of 400 MB stands in the peak of the pass that held it, and not in the next one's."""
    nothing = peak(lambda: None)
    held = peak(lambda: torch.ones(BLOCK, dtype=torch.uint8))
    again = peak(lambda: None)
    assert held - nothing == pytest.approx(BLOCK, rel=0.05)
    assert held - again == pytest.approx(BLOCK, rel=0.05)


def test_without_a_counter_to_restart_it_is_the_largest_since_the_process_began(tmp_path: Path) -> None:
    """A kernel that refuses leaves getrusage's figure, which never falls."""
    hook = MemoryHook()
    hook._clear = tmp_path / "absent" / "clear_refs"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    assert peak(lambda: None, hook) >= before * unit
    assert peak(lambda: None, hook) <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
