"""Kernels that run past torch's operators: what they filled is read, and so their layer says that FLOPs are missing."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from layerprof import LayerProfiler
from layerprof.readings import UNSEEN_KERNEL
from layerprof.records import Run


def fused(x: torch.Tensor) -> torch.Tensor:
    """Fill an empty tensor by its address, as Triton's kernels and an extension's do: no operator is seen."""
    out = torch.empty_like(x)
    ctypes.memmove(out.data_ptr(), x.data_ptr(), x.numel() * x.element_size())
    return out


class Block(nn.Module):
    """A state space's block: a product, and a scan that any function does."""

    def __init__(self, scan: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.in_proj, self.out_proj, self.scan = nn.Linear(8, 8), nn.Linear(8, 8), scan

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project, scan, project."""
        return self.out_proj(self.scan(self.in_proj(x)))  # type: ignore[no-any-return]  # torch's modules give Any


def profiled(*scans: Callable[[torch.Tensor], torch.Tensor]) -> Run:
    """Profile one call of as many blocks."""
    model = nn.Sequential(*map(Block, scans))
    with torch.no_grad(), LayerProfiler(model, flops="together") as prof:
        model(torch.ones(4, 8))
    return prof.run


PRODUCTS = 2 * 2 * 4 * 8 * 8
"""FLOPs of a block's two linear layers on four rows."""


def test_a_kernel_that_nobody_sees_is_told_by_what_it_filled() -> None:
    """Only the block in which it ran says `at least`; its products are counted, and the books name it."""
    run = profiled(torch.relu, fused)
    assert run.uncounted_ops == {UNSEEN_KERNEL: 1}
    assert [(row.name, row.flops, row.uncounted) for row in run.layers] == [
        ("0", PRODUCTS, {}),
        ("1", PRODUCTS, {UNSEEN_KERNEL: 1}),
    ]
    assert run.ledger.flops.not_counted[UNSEEN_KERNEL].places == {"1 prefill": 1}
    assert any(f"1 call of {UNSEEN_KERNEL} in 1 has no formula" in warning for warning in run.warnings)


def _written(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    out.view(-1)[:].copy_(x.view(-1))
    return out


def _given(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty(4, 8)
    return torch.add(x, 1, out=out)


def _drawn(x: torch.Tensor) -> torch.Tensor:
    return torch.empty(4, 8).normal_() + x


def _of_no_size(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, torch.empty(0, 8)])


def _only_looked_at(x: torch.Tensor) -> torch.Tensor:
    torch.empty_like(x).view(8, 4).reshape(32)
    return x.new_empty(4, 8).zero_() + x


def _asked_for_its_shape(x: torch.Tensor) -> torch.Tensor:
    shape = torch.empty(4, 8)
    return x + torch.zeros_like(shape) + shape.new_ones(4, 8)


@pytest.mark.parametrize("scan", [_written, _given, _drawn, _of_no_size, _only_looked_at, _asked_for_its_shape])
def test_empty_tensors_that_operators_write_hide_no_kernel(scan: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Copied into through a view, given as `out=`, drawn, without elements, never read, or asked for its shape."""
    assert profiled(scan).uncounted_ops == {}


def _fill(x: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(x)


@pytest.fixture
def extension() -> Iterator[Any]:
    """Open two namespaces as mamba_ssm and causal_conv1d have: one gives its answer, one fills what it is given."""
    libraries: list[Any] = []
    for space in ("lp_mamba_ssm", "lp_causal_conv1d"):
        libraries.append(torch.library.Library(space, "DEF"))  # type: ignore[no-untyped-call]  # untyped there
    scan, convolve = libraries
    scan.define("selective_scan_fwd(Tensor u) -> Tensor")
    scan.impl("selective_scan_fwd", lambda u: u.clone(), "CPU")
    convolve.define("causal_conv1d_fwd(Tensor x, Tensor out) -> ()")
    convolve.impl("causal_conv1d_fwd", _fill, "CPU")
    yield torch.ops
    for library in libraries:
        library._destroy()


def test_fused_operators_are_named_with_their_layers_and_once(extension: Any) -> None:
    """One that writes into a tensor although its schema does not say so is named as itself, not as unseen, too."""

    def convolved(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        extension.lp_causal_conv1d.causal_conv1d_fwd(x[:, :], out)
        return out + 0

    run = profiled(extension.lp_mamba_ssm.selective_scan_fwd, convolved)
    assert {row.name: row.uncounted for row in run.layers} == {
        "0": {"lp_mamba_ssm::selective_scan_fwd": 1},
        "1": {"lp_causal_conv1d::causal_conv1d_fwd": 1},
    }
    assert run.ledger.flops.residual == 0
    assert not any("balance" in warning for warning in run.warnings)
