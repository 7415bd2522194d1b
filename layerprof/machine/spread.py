"""A model that lies on several devices, or not where it runs: what one clock and one set of shapes cannot measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerprof.errors import RequestError
from layerprof.machine.modules import told

if TYPE_CHECKING:
    from torch import nn

ONE = "Load it whole on one device, without device_map or with device_map={'': 'cuda:0'}"


def check(model: nn.Module) -> None:
    """Raise RequestError for a model that is spread: over devices, over processes, or between memory and a device.

    Each layer is timed with the events of one device, and its bytes are those of weights that stay where they are.
    """
    for module in model.modules():
        if replicas := _replicas(module):
            raise RequestError(
                f"{type(module).__name__} copies the model to {replicas} devices in every call, and the copies are no "
                "layers of it.",
                "Measure the module inside it (`model.module`) on one device.",
            )
    if shards := _shards(model):
        raise RequestError(
            f"The model's weights are sharded over processes ({shards}); each holds a part of every layer.",
            "Measure it before it is sharded, on one device; `layerprof attribute` reads the traces of such runs.",
        )
    if offloaded := _offloaded(model):
        raise RequestError(
            f"{offloaded} of the model's modules are offloaded (accelerate): their weights are copied to the device in "
            "every call, and times would be those of the copies.",
            f"{ONE}; --quantization or a smaller --dtype makes a model smaller.",
        )
    places = dict.fromkeys(str(parameter.device) for parameter in model.parameters())
    if len(places) > 1:
        raise RequestError(
            f"The model's weights lie on {', '.join(places)}, and spans are timed with the events of one device.",
            f"{ONE}.",
        )


def _replicas(module: nn.Module) -> int:
    """Return over how many devices a module copies what is in it, 0 where it does not."""
    from torch import nn

    devices = module.device_ids if isinstance(module, nn.DataParallel) else ()
    return len(devices) if len(devices) > 1 else 0


def _shards(model: nn.Module) -> str:
    """Return what the sharded weights of a model are, empty where none are."""
    kinds = {type(part).__name__ for part in (*model.parameters(), *model.modules())}
    return ", ".join(sorted(kinds & {"DTensor", "FlatParameter", "FullyShardedDataParallel"}))


def _offloaded(model: nn.Module) -> int:
    """Count the modules whose weights accelerate brings to the device for each call, or for the next one."""
    hooks = [(module, told(module, "_hf_hook")) for module in model.modules()]
    each = [(module, told(hook, "hooks", (hook,))) for module, hook in hooks if hook is not None]
    return sum(
        any(told(hook, "offload") is True or _waits(module, hook) for hook in several) for module, several in each
    )


def _waits(module: nn.Module, hook: object) -> bool:
    """Tell whether a whole module lies in memory until it is called elsewhere (`cpu_offload_with_hook`)."""
    import torch

    place = told(hook, "execution_device")
    first = next(module.parameters(), None)
    if type(hook).__name__ != "CpuOffload" or place is None or first is None:
        return False
    return first.device.type != torch.device(place).type
