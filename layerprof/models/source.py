"""name | hub id | folder -> what to load and how to run it; checked before any weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from layerprof.attention import parse
from layerprof.demo import MODEL_FOLDER
from layerprof.errors import RequestError
from layerprof.machine import placement
from layerprof.models import attention as attentions
from layerprof.models import family, find
from layerprof.models.attention import Plan
from layerprof.models.find import Found
from layerprof.settings import ImageSize

QWEN_VL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""Families whose images are cut into cells of patch x merge pixels, one token a cell."""
AUTO_NEEDS_BYTES = 10 * 10**9
"""Free GPU memory for `auto` to choose the 3B model: 7.5 GB of fp16 weights, and room to work."""
FEWEST_CELLS, MOST_CELLS = 2, 128
"""Cells along an image's side: the published processors' min_pixels and max_pixels, in cells."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A request that can be carried out: what to load, and how to run it. `why` says what was chosen, and the reason.

    `checkpoint_dtype` is the number format that the weights are published in, None where the configuration is silent.
    `parameters` counts the configuration's weights, tied ones once. `cell_px` is the side of the square of pixels that
    one image token stands for; None where the family has no such rule. `attention` is what each tower is to run.
    """

    name: str
    found: Found
    weights: Literal["pretrained", "random"]
    device: str
    dtype: str
    optimization: str
    attention: Plan
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
        return self.found.processor == str(MODEL_FOLDER)


def resolve(
    name: str = "auto",
    *,
    weights: str = "pretrained",
    device: str = "auto",
    dtype: str = "auto",
    optimization: str = "eager",
    attention: str = "auto",
    seed: int = 0,
) -> ModelSource:
    """Return what to load for `auto`, `demo`, `qwen2.5-vl-3b`, a hub id (`owner/name[@revision]`) or a folder.

    Nothing is loaded but the configuration. Raises RequestError for an unknown name (with the nearest), an incomplete
    folder (with what it lacks), a hub model that is not cached where there is no network, a device, dtype, optimisation
    or attention that is unknown or not there, a family that cannot be loaded, and weights larger than the memory.
    """
    if weights not in ("pretrained", "random"):
        raise RequestError(f"Unknown weights '{weights}'.", "Choose pretrained or random.")
    placement.check_names(optimization, dtype)
    optimization = optimization.strip().lower()
    asked = parse(attention)
    on = placement.device(device)
    placement.check_optimization(optimization, on)
    chosen, reason = _automatic(on, weights) if name.strip().lower() == "auto" else (name, "")
    found = find.find(chosen, weights)
    planned = attentions.plan(asked, optimization, found.config)
    attentions.check(planned, optimization, on)
    parameters = find.parameter_count(found, planned)
    number, dtype_reason = placement.dtype(dtype, on, parameters)
    own = placement.checkpoint_dtype(found.config)
    attentions.check_dtype(planned, number)
    if optimization == "graph":
        family.check_static_cache(found.config)
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
        attention=planned,
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
    name = find.ARCHITECTURE if weights == "random" else find.HUB_3B
    return name, f"auto chose it, since {on} has {free / 1e9:.0f} GB free"


def _cell_px(config: Any) -> int | None:
    vision = getattr(config, "vision_config", None)
    if config.model_type not in QWEN_VL or vision is None:
        return None
    return int(vision.patch_size) * int(vision.spatial_merge_size)


def check_image_size(source: ModelSource, image_size: ImageSize) -> None:
    """Raise RequestError for a size that the model's vision tower cannot take as it is; before anything is loaded."""
    check_cells(image_size, source.cell_px)


def check_cells(image_size: ImageSize, cell_px: int | None) -> None:
    """Raise RequestError unless a square image of this side is a whole number of cells, and not too few or too many."""
    if image_size == "native":
        return
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
