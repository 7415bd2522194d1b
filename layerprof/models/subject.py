"""name | hub id | folder -> a model in eval mode on its device, its processor, and where both came from.

`resolve` checks a request without loading weights, so that a mistake is told at once; `load` then loads what it found.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from layerprof.errors import RequestError
from layerprof.machine import placement
from layerprof.models import find as locate
from layerprof.models.find import Found

QWEN_VL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""Families whose images are cut into cells of patch x merge pixels, one token a cell."""
AUTO_NEEDS_BYTES = 10 * 10**9
"""Free GPU memory for `auto` to choose the 3B model: 7.5 GB of fp16 weights, and room to work."""
FEWEST_CELLS, MOST_CELLS = 2, 128
"""Cells along an image's side: the published processor's min_pixels and max_pixels, as multiples of 28 pixels."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A request that can be carried out: what to load, and how to run it. `why` says what was chosen, and the reason.

    `checkpoint_dtype` is the number format that the weights are published in, None where the configuration is silent.
    `parameters` counts the configuration's weights, tied ones once. `cell_px` is the side of the square of pixels that
    one image token stands for; None where the family has no such rule.
    """

    name: str
    found: Found
    weights: Literal["pretrained", "random"]
    device: str
    dtype: str
    optimization: str
    parameters: int
    cell_px: int | None
    why: str
    seed: int = 0
    checkpoint_dtype: str | None = None

    @property
    def label(self) -> str:
        """A short name for folders and titles."""
        return self.name.rstrip("/").rpartition("/")[2] + ("-random" if self.weights == "random" else "")

    @property
    def is_demo(self) -> bool:
        """Whether the bundled samples are its natural data: the bundled model, or any model with its tokenizer."""
        return self.found.processor == str(locate.DEMO)


@dataclass(frozen=True)
class Subject:
    """What is profiled: a live model, what prepares its inputs, and where they came from."""

    model: Any
    processor: Any
    provenance: dict[str, Any] = field(default_factory=dict)
    optimization: str = "eager"

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer; the processor itself where it is one."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def takes_images(self) -> bool:
        """Whether the processor prepares images."""
        return getattr(self.processor, "image_processor", None) is not None

    @property
    def is_qwen_vl(self) -> bool:
        """Whether the model belongs to the Qwen vision-language family."""
        return getattr(self.model.config, "model_type", "") in QWEN_VL and self.takes_images

    @property
    def cell_px(self) -> int | None:
        """Pixels along one image token's side, patch x merge, for the Qwen family."""
        if not self.is_qwen_vl:
            return None
        images = self.processor.image_processor
        return int(images.patch_size) * int(images.merge_size)

    @cached_property
    def device(self) -> str:
        """The device of the model's weights: `cpu` or `cuda:N`."""
        return str(next(self.model.parameters()).device)

    @property
    def dtype(self) -> Any:
        """The torch dtype of the model's weights."""
        return next(weight.dtype for weight in self.model.parameters() if weight.is_floating_point())

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an answer, from the generation config, the model's config or the tokenizer."""
        text = self.model.config.get_text_config() if hasattr(self.model.config, "get_text_config") else None
        for owner in (getattr(self.model, "generation_config", None), text, self.tokenizer):
            ids = getattr(owner, "eos_token_id", None)
            if ids is not None:
                return tuple(ids) if isinstance(ids, (list, tuple)) else (int(ids),)
        return ()

    @property
    def pad_id(self) -> int:
        """Id that fills short rows; the first end id (or 0) where the tokenizer has none."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else next(iter(self.eos_ids), 0))

    @property
    def image_token_id(self) -> int | None:
        """Id that stands for one image token in a prompt."""
        for owner in (self.model.config, self.processor):
            for name in ("image_token_id", "image_token_index"):
                value = getattr(owner, name, None)
                if value is not None:
                    return int(value)
        return None


def resolve(
    name: str = "auto",
    *,
    weights: str = "pretrained",
    device: str = "auto",
    dtype: str = "auto",
    optimization: str = "eager",
    seed: int = 0,
) -> ModelSource:
    """Return what to load for `auto`, `demo`, `qwen2.5-vl-3b`, a hub id (`owner/name[@revision]`) or a folder.

    Nothing is loaded but the configuration. Raises RequestError for an unknown name (with the nearest), an incomplete
    folder (with what it lacks), a hub model that is not cached where there is no network, a device, dtype or
    optimisation that is unknown or not there, a family that cannot be loaded, and weights larger than the memory.
    """
    if weights not in ("pretrained", "random"):
        raise RequestError(f"Unknown weights '{weights}'.", "Choose pretrained or random.")
    placement.check_names(optimization, dtype)
    optimization = optimization.strip().lower()
    on = placement.device(device)
    chosen, reason = _automatic(on, weights) if name.strip().lower() == "auto" else (name, "")
    found = locate.find(chosen, weights)
    parameters = locate.parameter_count(found)
    number, dtype_reason = placement.dtype(dtype, on, parameters)
    own = placement.checkpoint_dtype(found.config)
    placement.check_optimization(optimization, on, number)
    placement.check_memory(parameters, number, on)
    differs = f" (published in {own})" if own not in (None, number) else ""
    told = ", ".join(part for part in (reason, found.why, dtype_reason) if part)
    why = f"{found.name} ({parameters / 1e6:,.1f} M parameters, {weights} weights) on {on} in {number}{differs}"
    return ModelSource(
        name=found.name,
        found=found,
        weights="random" if weights == "random" else "pretrained",
        device=on,
        dtype=number,
        optimization=optimization,
        parameters=parameters,
        cell_px=_cell_px(found.config),
        why=f"{why}: {told}" if told else why,
        seed=seed,
        checkpoint_dtype=own,
    )


def _automatic(on: str, weights: str) -> tuple[str, str]:
    """Choose between the 3B model and the bundled one by the GPU's free memory."""
    if on == "cpu":
        return "demo", "auto chose the bundled model, since there is no GPU"
    free = placement.free_bytes(on) or 0
    if free < AUTO_NEEDS_BYTES:
        return "demo", f"auto chose the bundled model, since {on} has only {free / 1e9:.1f} GB free"
    name = locate.ARCHITECTURE if weights == "random" else locate.HUB_3B
    return name, f"auto chose it, since {on} has {free / 1e9:.0f} GB free"


def _cell_px(config: Any) -> int | None:
    vision = getattr(config, "vision_config", None)
    if config.model_type not in QWEN_VL or vision is None:
        return None
    return int(vision.patch_size) * int(vision.spatial_merge_size)


def check_image_size(source: ModelSource, image_size: int) -> None:
    """Raise RequestError for a size that the model's vision tower cannot take as it is; before anything is loaded."""
    check_cells(image_size, source.cell_px)


def check_cells(image_size: int, cell_px: int | None) -> None:
    """Raise RequestError unless a square image of this side is a whole number of cells, and not too few or too many."""
    if cell_px is None:
        if image_size < 1:
            raise RequestError(f"--image-size is {image_size}.", "Give --image-size 1 or more.")
        return
    smallest, largest = FEWEST_CELLS * cell_px, MOST_CELLS * cell_px
    if image_size < smallest or image_size > largest:
        problem = f"--image-size {image_size} is {'below' if image_size < smallest else 'above'} what this model takes."
        remedy = f"Give a multiple of {cell_px} between {smallest} and {largest}, such as {8 * cell_px}."
        raise RequestError(problem, remedy)
    if image_size % cell_px:
        below = image_size // cell_px * cell_px
        raise RequestError(
            f"--image-size {image_size} is not a multiple of {cell_px}, the pixels along one image token.",
            f"Give {below} or {below + cell_px}.",
        )


def load(source: ModelSource) -> Subject:
    """Load the model and its processor.

    Raises RequestError when the files turn out not to fit the configuration, or to need a package that is not there.
    """
    from layerprof.models import load as loading

    model, processor = loading.load(source)
    return Subject(model, processor, _provenance(source, model), source.optimization)


def wrap(model: Any, processor: Any, *, name: str = "own model", optimization: str = "eager") -> Subject:
    """Return a subject of a model and processor that the caller has loaded, in eval mode and with left padding."""
    from layerprof.models import load as loading

    model.eval()
    loading.prepare_tokenizer(processor)
    subject = Subject(model, processor, {}, optimization)
    names = {torch_name: ours for ours, torch_name in placement.DTYPES.items()}
    torch_name = str(subject.dtype).removeprefix("torch.")
    subject.provenance.update(_facts(model), name=name, kind="own", dtype=names.get(torch_name, torch_name))
    return subject


def _provenance(source: ModelSource, model: Any) -> dict[str, Any]:
    own = {
        "name": source.name,
        "kind": source.found.kind,
        "location": source.found.location if source.found.kind in ("hub", "folder") else "bundled",
        "revision": source.found.revision,
        "weights": source.weights,
        "seed": source.seed if source.weights == "random" else None,
        "dtype": source.dtype,
        "checkpoint_dtype": source.checkpoint_dtype,
        "device": source.device,
        "optimization": source.optimization,
        "processor": "bundled" if source.is_demo else source.found.processor,
        "token_ids": "special ids set to the bundled tokenizer's" if source.found.borrowed else "own",
    }
    return own | _facts(model)


def _facts(model: Any) -> dict[str, Any]:
    """Return what can be read off a live model, whoever loaded it."""
    import torch
    import transformers

    config = model.config.to_dict() if hasattr(model.config, "to_dict") else {}
    text = json.dumps(config, sort_keys=True, default=str)
    return {
        "architecture": type(model).__name__,
        "model_type": config.get("model_type"),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "attention": getattr(model.config, "_attn_implementation", None),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
