"""Where and how a model runs: names that may be asked for, and what they come to."""

from __future__ import annotations

from typing import get_args

import psutil
import pytest
import torch

from layerprof.errors import RequestError
from layerprof.machine import placement
from layerprof.settings import Dtype, Optimization


def test_what_may_be_asked_for_is_known() -> None:
    """Number formats and optimisations of the command line are those that a model can be placed in."""
    assert set(get_args(Dtype)) == {"auto", *placement.DTYPES}
    assert set(get_args(Optimization)) == set(placement.ATTENTION)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_our_names_are_torch_s_formats(name: str, dtype: torch.dtype) -> None:
    """In both directions."""
    assert placement.torch_dtype(name) is dtype
    assert placement.dtype_name(dtype) == name


def test_free_memory_is_what_a_new_program_can_have() -> None:
    """Part of the memory that there is: pages that the system would give back count as free."""
    free = placement.free_bytes("cpu")
    assert free is not None
    assert psutil.virtual_memory().free // 2 < free <= psutil.virtual_memory().total


def test_memory_that_the_system_hides_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may hide the file: then nothing is refused for want of memory."""

    def hidden() -> None:
        raise PermissionError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", hidden)
    assert placement.free_bytes("cpu") is None
    placement.check_memory(10**15, "fp32", "cpu")
    assert placement.dtype("auto", "cpu", 10**15) == ("fp32", "")


@pytest.mark.parametrize(("dtype", "fits"), [("fp16", True), ("bf16", True), ("fp32", False)])
def test_weights_are_held_to_the_free_memory(dtype: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes a weight, or four: 3 billion of them are 6 or 12 GB, and 8 are free."""
    monkeypatch.setattr(placement, "free_bytes", lambda on: 8 * 10**9)
    if fits:
        placement.check_memory(3 * 10**9, dtype, "cpu")
        return
    with pytest.raises(RequestError, match=r"need 12\.0 GB, and cpu has 8\.0 GB free"):
        placement.check_memory(3 * 10**9, dtype, "cpu")
