"""Models over several devices, in shards or offloaded: measured right, or refused with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from layerprof import LayerProfiler
from layerprof.errors import RequestError
from layerprof.models.load import wrap


def _model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


def _refused(model: nn.Module) -> RequestError:
    with pytest.raises(RequestError) as caught:
        LayerProfiler(model)
    return caught.value


FLOPS = 2 * 2 * 4 * 8 * 8


def _measured(model: Any) -> None:
    with torch.no_grad(), LayerProfiler(model, flops="together") as prof:
        model(torch.ones(4, 8))
    assert (prof.run.ledger.flops.total, prof.run.ledger.flops.residual) == (FLOPS, 0)
    assert [row.calls for row in prof.run.layers] == [1, 1]


def test_a_device_map_of_one_device_is_measured() -> None:
    """Accelerate's hooks stand around each forward and move nothing; layers are those of the model."""
    _measured(accelerate.dispatch_model(_model(), {"": "cpu"}, force_hooks=True))


def test_data_parallel_without_several_devices_is_measured() -> None:
    """It calls the module inside it."""
    _measured(nn.DataParallel(_model()))


def test_weights_in_memory_that_run_elsewhere_are_refused() -> None:
    """Offloaded to the host's memory: each call copies them."""
    error = _refused(accelerate.cpu_offload(_model(), execution_device=torch.device("cpu")))
    assert "offloaded" in error.problem
    assert "one device" in error.remedy


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_a_layer_that_is_offloaded_among_others_is_refused(tmp_path: Path, place: str) -> None:
    """Its weights lie at new addresses in every call, which those of activations may be in the next.

    A `device_map` may put one part on the device and another into the host's memory or on the disk.
    """
    model = _model()
    if place == "disk":
        accelerate.dispatch_model(
            model, {"0": "cpu", "2": "disk"}, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
        )
    else:
        accelerate.cpu_offload(model[2], execution_device=torch.device("cpu"))
    error = _refused(model)
    assert "offloaded" in error.problem
    assert "one device" in error.remedy
    with pytest.raises(RequestError, match="offloaded"):
        wrap(model, None)


def test_a_model_that_waits_in_memory_for_its_call_is_refused() -> None:
    """Moved as a whole by its next call: where that is where it lies already, nothing moves, and it is measured."""
    there, _ = accelerate.cpu_offload_with_hook(_model(), execution_device="cpu")
    _measured(there)
    elsewhere, _ = accelerate.cpu_offload_with_hook(_model(), execution_device="meta")
    assert "offloaded" in _refused(elsewhere).problem


def test_an_offloaded_model_is_no_ghost() -> None:
    """All of its weights are on the meta device between calls; that of ghosts is another message."""
    offloaded = accelerate.cpu_offload(_model(), execution_device=torch.device("cpu"))
    assert {parameter.device.type for parameter in offloaded.parameters()} == {"meta"}
    assert "Load it whole" in _refused(offloaded).remedy
    assert "layerprof estimate" in _refused(_model().to("meta")).remedy


def test_weights_on_disk_are_refused(tmp_path: Path) -> None:
    """The same of those that lie in files."""
    model = accelerate.disk_offload(_model(), str(tmp_path), execution_device=torch.device("cpu"))
    assert "offloaded" in _refused(model).problem
    with pytest.raises(RequestError, match="offloaded"):
        wrap(model, None)


def test_a_part_without_memory_is_refused() -> None:
    """Some weights on the meta device beside others."""
    model = _model()
    model[2].to("meta")
    assert "lie on cpu, meta" in _refused(model).problem


def test_layers_on_two_gpus_are_refused() -> None:
    """Tensors that only say where they are stand for two GPUs."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = nn.Sequential(nn.Linear(8, 8, device="cuda:0"), nn.Linear(8, 8, device="cuda:1"))
    error = _refused(model)
    assert "lie on cuda:0, cuda:1" in error.problem
    assert "device_map" in error.remedy


def test_replicas_on_several_devices_are_refused() -> None:
    """DataParallel with two devices runs copies on threads of their own."""
    model = nn.DataParallel(_model())
    model.device_ids = [0, 1]
    error = _refused(model)
    assert "DataParallel copies the model to 2 devices" in error.problem
    assert "model.module" in error.remedy


@pytest.fixture
def alone() -> Iterator[None]:
    """Open a group of one process, without a network."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())  # type: ignore[attr-defined]  # not in its stubs
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_sharded_weights_are_refused() -> None:
    """FSDP2 and tensor parallelism hold DTensors, each a part of a weight."""
    model, mesh = _model(), init_device_mesh("cpu", (1,))
    weight = torch.ones(8, 8)
    model[0].weight = nn.Parameter(distribute_tensor(weight, mesh, [Shard(0)]))
    error = _refused(model)
    assert "sharded over processes (DTensor)" in error.problem
    assert "on one device" in error.remedy
