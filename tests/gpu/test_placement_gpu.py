"""On CUDA devices: models under a device map, offloaded, replicated or split."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerprof import LayerProfiler
from layerprof.errors import RequestError

accelerate = pytest.importorskip("accelerate")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TWO = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")


def _model() -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(3)))


def test_a_device_map_of_one_gpu_is_measured() -> None:
    """Accelerate's hooks move inputs to the GPU; spans are of that GPU's events, FLOPs those of six products."""
    model = accelerate.dispatch_model(_model(), {"": 0}, force_hooks=True)
    with torch.no_grad(), LayerProfiler(model, flops="together") as prof:
        model(torch.ones(8, 64))
    assert prof.run.ledger.flops.total == 6 * 2 * 8 * 64 * 64
    assert all(row.span_s is not None and row.span_s.total > 0 for row in prof.run.layers)


def test_weights_in_the_host_s_memory_are_refused() -> None:
    """Copied to the GPU in every call."""
    with pytest.raises(RequestError, match="offloaded"):
        LayerProfiler(accelerate.cpu_offload(_model(), execution_device=torch.device("cuda:0")))


def test_a_part_on_the_host_is_refused() -> None:
    """Its spans are no events of the GPU."""
    model = _model().to("cuda:0")
    model[2].to("cpu")
    with pytest.raises(RequestError, match="lie on cuda:0, cpu"):
        LayerProfiler(model)


@TWO
def test_replicas_and_parts_on_two_gpus_are_refused() -> None:
    """DataParallel, and a device map over both."""
    with pytest.raises(RequestError, match="copies the model to"):
        LayerProfiler(nn.DataParallel(_model().to("cuda:0")))
    split = accelerate.dispatch_model(_model(), {"0": 0, "1": 0, "2": 1})
    with pytest.raises(RequestError, match="lie on cuda:0, cuda:1"):
        LayerProfiler(split)
