"""Adapters as peft saves them: a folder without a model of its own, that names the base model which it goes onto.

The adapter is put into the base model's layers and stays there unmerged, as it is served beside others: the layers keep
the names that they have in the base model, and hold its matrices (`q_proj.lora_A.default`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.errors import RequestError
from layerprof.machine import packages
from layerprof.models import checkpoint

if TYPE_CHECKING:
    from torch import nn

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's folder, the base model that it names, its kind (`LORA`) and, where it has one, its rank."""

    folder: str
    base: str
    kind: str
    rank: int | None

    @property
    def told(self) -> str:
        """What it is, in words: `LORA adapter of rank 8 on NAME`."""
        return f"{self.kind} adapter{f' of rank {self.rank}' if self.rank else ''} on {self.base}"

    @property
    def facts(self) -> dict[str, Any]:
        """What a run keeps of it."""
        return {"location": self.folder, "kind": self.kind, "rank": self.rank, "base": self.base}


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def read(name: str, folder: Path, weights: str) -> Adapter:
    """Return the adapter of a folder. Raises RequestError where it lacks something, or the package is not there."""
    config = checkpoint.read_json(folder / CONFIG)
    merge = "merge it into its base model and give the folder of the result"
    base = (config or {}).get("base_model_name_or_path")
    if config is None or not isinstance(base, str) or not base:
        what = "is not readable JSON" if config is None else "names no base model"
        raise RequestError(
            f"The model folder '{name}' holds an adapter, whose {CONFIG} {what}.",
            f"Write its base model into it (base_model_name_or_path), or {merge}.",
        )
    if find_spec("peft") is None:
        raise RequestError(
            f"The model folder '{name}' holds an adapter on {base}, which needs the package peft.",
            f"Install it (`pip install peft`), or {merge}.",
        )
    if refused := packages.unusable("peft"):
        raise refused
    if weights != "random":
        _check_weights(name, folder)
    beside = folder / base
    rank = config.get("r")
    return Adapter(
        folder=str(folder),
        base=str(beside) if not Path(base).exists() and beside.is_dir() else base,
        kind=str(config.get("peft_type", "adapter")),
        rank=rank if isinstance(rank, int) else None,
    )


def _check_weights(name: str, folder: Path) -> None:
    file = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    broken = "missing" if file is None else checkpoint.broken_file(file)
    if broken:
        raise RequestError(
            f"The model folder '{name}' is incomplete: weights {file.name if file else WEIGHTS[0]}: {broken}.",
            "Copy the missing files into the folder, or use --weights random.",
        )


def put_on(model: nn.Module, adapter: Adapter, device: str, *, random: bool) -> Any:
    """Return the base model with the adapter in its layers, in the number format of the base.

    Raises RequestError for an adapter that is no part of any layer (prompts that are learnt).
    """
    import peft

    config = peft.PeftConfig.from_pretrained(adapter.folder)
    if config.is_prompt_learning:
        raise RequestError(
            f"The adapter in '{adapter.folder}' ({adapter.kind}) is no part of the model's layers.",
            "Load it yourself with peft and measure it with layerprof.LayerProfiler.",
        )
    config.inference_mode = True
    if random:
        adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    else:
        adapted = peft.PeftModel.from_pretrained(
            model, adapter.folder, config=config, torch_device=device, autocast_adapter_dtype=False
        )
    return adapted.get_base_model().to(device) if random else adapted.get_base_model()
