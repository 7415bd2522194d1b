"""name | hub id | folder -> what to load and how to run it; checked before any weight is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from layerprof.attention import parse
from layerprof.demo import MODEL_FOLDER
from layerprof.errors import RequestError
from layerprof.machine import placement
from layerprof.models import attention as attentions
from layerprof.models import family, find, names, published
from layerprof.models import quantization as formats
from layerprof.models.attention import Plan
from layerprof.models.find import Found
from layerprof.models.published import Published
from layerprof.models.quantization import StoragePlan
from layerprof.models.quantized import quiet
from layerprof.settings import ImageSize

QWEN_VL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""Families whose images are cut into cells of patch x merge pixels, one token a cell."""
Leave = Callable[[Any], Iterable[str]]
"""A model without memory -> the names of its modules that are left as they are."""
FEWEST_CELLS, MOST_CELLS = 2, 128
"""Cells along an image's side: the published processors' min_pixels and max_pixels, in cells."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A request that can be carried out: what to load, and how to run it. `why` says what was chosen, and the reason.

    `checkpoint_dtype` is the number format that the weights are published in, None where the configuration is silent.
    `parameters` counts the configuration's weights, tied ones once. `cell_px` is the side of the square of pixels that
    one image token stands for; None where the family has no such rule. `attention` is what each tower is to run.
    `quantized` is how the weights are stored where they are no ordinary numbers: by a plan, as they are loaded, or in
    the checkpoint already.
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
    quantized: StoragePlan | Published | None = None

    @property
    def label(self) -> str:
        """A short name for folders and titles."""
        stored = f"-{self.quantized.format}" if isinstance(self.quantized, StoragePlan) else ""
        return self.name.rstrip("/").rpartition("/")[2] + ("-random" if self.weights == "random" else "") + stored

    @property
    def remark(self) -> str | None:
        """What is to be known of the figures of a model that does not run on its weights as they are stored."""
        if not isinstance(self.quantized, Published) or not self.quantized.unpacked:
            return None
        return (
            f"The weights of {self.name} are stored as {self.quantized.format}, and {self.quantized.package} unpacks "
            f"them to {self.dtype} before they run: bytes, memory and times are those of {self.dtype}."
        )

    @property
    def reads_images(self) -> bool:
        """Whether the model is asked with images, and not by text alone."""
        return family.reads_images(self.found.config)

    @property
    def is_demo(self) -> bool:
        """Whether the bundled samples are its natural data: the bundled model, or any model with its tokenizer."""
        return self.found.processor == str(MODEL_FOLDER)


@quiet()
def resolve(
    name: str = "auto",
    *,
    weights: str = "pretrained",
    device: str = "auto",
    dtype: str = "auto",
    optimization: str = "eager",
    attention: str = "auto",
    seed: int = 0,
    quantization: str = "none",
    leave: Leave | None = None,
) -> ModelSource:
    """Return what to load for `auto`, `demo`, `qwen2.5-vl-3b`, a hub id (`owner/name[@revision]`) or a folder.

    Nothing is loaded but the configuration. Raises RequestError for an unknown name (with the nearest), an incomplete
    folder (with what it lacks), a hub model that is not cached where there is no network, a device, dtype, optimisation
    or attention that is unknown or not there, a family that cannot be loaded, and weights larger than the memory.
    `leave` picks what `quantization` leaves as it is: the names of modules of a model, which has no memory. Where the
    format asked for, or that of the checkpoint, is not to be had here, that is refused, too.
    """
    if weights not in ("pretrained", "random"):
        raise RequestError(f"Unknown weights '{weights}'.", "Choose pretrained or random.")
    placement.check_names(optimization, dtype)
    optimization = optimization.strip().lower()
    asked = parse(attention)
    on = placement.device(device)
    placement.check_optimization(optimization, on)
    named = names.resolve(name, "random" if weights == "random" else "pretrained", on)
    found = find.find(named, weights)
    planned = attentions.plan(asked, optimization, found.config)
    attentions.check(planned, optimization, on)
    parameters = find.parameter_count(found, planned)
    own = placement.checkpoint_dtype(found.config)
    stored = published.of_config(found.config) if weights == "pretrained" else None
    if stored is not None:
        _check_stored(stored, found.name, on, quantization)
    number, dtype_reason = _dtype(dtype, on, parameters, quantization, own if stored else None)
    attentions.check_dtype(planned, number)
    if optimization == "graph":
        family.check_static_cache(found.config)
    if stored is not None:
        published.check_dtype(stored, found.name, number, own)
    quantized = stored or _plan(found, quantization, on, number, leave)
    _check_memory(found, quantized, parameters, number, on)
    differs = f" (published in {own})" if own not in (None, number) else ""
    stored_as = quantized.why if quantized else ""
    told = ", ".join(part for part in (named.why, found.why, dtype_reason, stored_as) if part)
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
        quantized=quantized,
    )


def _dtype(asked: str, on: str, parameters: int, quantization: str, stored_in: str | None) -> tuple[str, str]:
    """Return the number format and why: beside quantized weights `auto` is what they go with."""
    if asked.strip().lower() == "auto":
        if stored_in in placement.DTYPES:
            return stored_in, f"{stored_in}, which the quantized checkpoint was saved with"
        needed = formats.needed_dtype(quantization, on)
        if needed is not None:
            return needed, f"{needed}, which {quantization} goes with"
    return placement.dtype(asked, on, parameters)


def _plan(found: Found, quantization: str, on: str, dtype: str, leave: Leave | None) -> StoragePlan | None:
    if quantization == "none":
        return None
    formats.check(quantization, on, dtype)
    model = find.skeleton(found)
    return formats.plan(model, quantization, on=on, dtype=dtype, leave=leave(model) if leave else ())


def _check_stored(stored: Published, name: str, on: str, quantization: str) -> None:
    """Raise RequestError where a checkpoint's format is not to be had here, or is to be replaced by another."""
    if quantization != "none":
        raise RequestError(
            f"--quantization {quantization} cannot be had: {name} is quantized already ({stored.told}).",
            "Leave --quantization out, or give the unquantized checkpoint.",
        )
    published.check(stored, name, on)


def _check_memory(
    found: Found, quantized: StoragePlan | Published | None, parameters: int, dtype: str, on: str
) -> None:
    """Raise RequestError when the weights, as they will be stored, are larger than the device's free memory."""
    stored = quantized.bytes if isinstance(quantized, StoragePlan) else None
    if isinstance(quantized, Published) and not quantized.unpacked:
        stored = find.weight_bytes(found)
        if stored is None:
            return
    stored_as = quantized.format if quantized and stored is not None else ""
    placement.check_memory(parameters, dtype, on, stored=stored, stored_as=stored_as)


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
