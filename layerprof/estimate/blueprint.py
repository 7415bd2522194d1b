"""A model from its configuration alone, and inputs for it: no weight is loaded.

Which inputs a vision-language model wants is read off its `forward` and its configuration: image grids (Qwen2-VL and
its like), tiles, image sizes, aspect ratios, or plain pixels. How many tokens an image becomes is asked of the model.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from layerprof.errors import LayerprofError, RequestError
from layerprof.machine import internals, packages
from layerprof.models import family

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

AUTOS = ("AutoModelForImageTextToText", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModel")
WORD = 9
"""A token id that stands for text: any that is neither padding nor an image."""


@dataclass(slots=True)
class PromptInputs:
    """What `generate()` (or an encoder's `forward`) is given; `image_tokens` and `prompt_tokens` count one row."""

    tensors: dict[str, Any]
    image_tokens: int = 0
    prompt_tokens: int = 0
    notes: list[str] = field(default_factory=list)


def build(config: PreTrainedConfig, dtype: Any) -> Any:
    """Build the model of a configuration in evaluation mode; inside `Ghosts()` it takes no memory.

    With SDPA, or eager attention for the few that have no other. Raises RequestError when transformers has no model for
    the configuration, or cannot build it.
    """
    with understood(config.model_type):
        make = _maker(config)
        try:
            return make(config, dtype=dtype, attn_implementation="sdpa").eval()
        except ValueError as error:
            if "attention implementation" not in str(error):
                raise
            return make(config, dtype=dtype, attn_implementation="eager").eval()


def _maker(config: PreTrainedConfig) -> Callable[..., Any]:
    """Find what builds a model: the class that the configuration names, else what transformers maps it to."""
    import transformers

    for name in getattr(config, "architectures", None) or ():
        found = internals.maker(getattr(transformers, name, object))
        if found is not None:
            return found
    for auto in AUTOS:
        if family.knows(auto, config):
            mapped: Callable[..., Any] = getattr(transformers, auto).from_config
            return mapped
    raise RequestError(
        f"transformers has no model for configurations of type {config.model_type!r}.",
        "Give the configuration of a model that transformers implements.",
    )


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Turn what transformers raises on a model made from its configuration into a request that cannot be met."""
    try:
        yield
    except LayerprofError:
        raise
    except Exception as error:  # a model checks its configuration and inputs in ways of its own
        if refused := packages.behind(error):
            raise refused from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(
            f"{name} cannot be run from its configuration alone: {first}",
            "Check that its parts fit together, or profile it: `layerprof profile --weights random` uses real inputs.",
        ) from error


def inputs(model: Any, rows: int, image_size: int, text_tokens: int) -> PromptInputs:
    """Make the inputs of `rows` samples, each one image (where the model sees any) and `text_tokens` of text.

    Raises RequestError when the model does not take images of this size, or wants inputs that a configuration does not
    tell.
    """
    wanted = set(inspect.signature(model.forward).parameters)
    if _vision_config(model.config) is None:
        if not hasattr(model.config, "vision_config") and family.takes_pixels(model.forward):
            raise RequestError(
                f"The configuration of {type(model).__name__} does not tell how large its images are.",
                "Profile it instead: `layerprof profile --weights random` runs it on real inputs.",
            )
        return _text(PromptInputs({}), rows, text_tokens, None)
    made = PromptInputs({})
    if "image_grid_thw" in wanted:
        _grid(made, model, rows, image_size)
    else:
        _pixels(made, model, wanted, rows, image_size)
    if "input_ids" not in wanted:
        return made
    image_id = _image_token(model.config)
    made.image_tokens = made.image_tokens or _count_features(model, made) // rows
    _text(made, rows, text_tokens, image_id)
    types = (made.tensors["input_ids"] == image_id).int()
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in wanted:
            made.tensors[name] = types
    if "cross_attention_mask" in wanted:
        _cross_attention(made)
    return made


def _text(made: PromptInputs, rows: int, text_tokens: int, image_id: int | None) -> PromptInputs:
    """Add ids and mask: the image's tokens after the first of the text, no padding."""
    import torch

    word = WORD + 1 if image_id == WORD else WORD  # Aria's images are 9s
    ids = torch.full((rows, text_tokens + made.image_tokens), word)
    if image_id is not None:
        ids[:, 1 : 1 + made.image_tokens] = image_id
    made.prompt_tokens = ids.shape[1]
    made.tensors |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return made


def _grid(made: PromptInputs, model: Any, rows: int, size: int) -> None:
    """Packed patches with a (frames, height, width) grid per image."""
    import torch

    from layerprof.estimate.ghost import ghost

    vision = _vision_config(model.config)
    patch, merge = vision.patch_size, getattr(vision, "spatial_merge_size", 1)
    if size % (patch * merge):
        raise RequestError(
            f"An image of {size} pixels does not divide into {patch * merge}-pixel tokens.",
            f"Use a multiple of {patch * merge}, such as {max(round(size / patch / merge), 1) * patch * merge}.",
        )
    side = size // patch
    channels = getattr(vision, "in_channels", None) or getattr(vision, "in_chans", None) or 3
    kernel = channels * getattr(vision, "temporal_patch_size", 1) * patch**2
    made.tensors["pixel_values"] = ghost((rows * side * side, kernel), model.dtype)
    made.tensors["image_grid_thw"] = torch.tensor([[1, side, side]] * rows)
    made.image_tokens = side * side // merge**2


def _pixels(made: PromptInputs, model: Any, wanted: set[str], rows: int, size: int) -> None:
    """Whole images: of the size asked for where the tower takes any, else of the size that it was made for."""
    vision = _vision_config(model.config)
    own = getattr(vision, "image_size", None) or getattr(vision, "resolution", None)
    height, width = own if isinstance(own, (list, tuple)) else (own or size, own or size)
    tiled = hasattr(model.config, "image_grid_pinpoints")
    free = not tiled and "image_sizes" in wanted and _takes(model, wanted, rows, size)
    if free:
        height = width = size
    elif not tiled and (height, width) != (size, size):
        made.notes.append(f"The vision tower takes images of {height} x {width} pixels; --image-size has no effect.")
    made.tensors |= _images(model, wanted, rows, (height, width), size if free or tiled else None)
    if "aspect_ratio_ids" in wanted:
        made.image_tokens = 1


def _takes(model: Any, wanted: set[str], rows: int, size: int) -> bool:
    """Tell by trial whether a tower takes images of any size."""
    images = _images(model, wanted, rows, (size, size), size)
    try:
        model(**images) if "input_ids" not in wanted else _count_features(model, PromptInputs(images))
    except (ValueError, RuntimeError, AttributeError):
        return False
    return True


def _images(model: Any, wanted: set[str], rows: int, sides: tuple[int, int], size: int | None) -> dict[str, Any]:
    """Pixels of one image per row, in as many dimensions as the model wants, with what it wants beside them.

    `size` is told to models that ask for it: those with tiles, and those that take any.
    """
    import torch

    from layerprof.estimate.ghost import ghost

    beside: dict[str, Any] = {}
    shape: tuple[int, ...] = (rows, 3, *sides)
    if "pixel_attention_mask" in wanted:
        shape = (rows, 1, 3, *sides)
    if "aspect_ratio_ids" in wanted:
        tiles = _vision_config(model.config).max_num_tiles
        shape = (rows, 1, tiles, 3, *sides)
        beside["aspect_ratio_ids"] = torch.ones(rows, 1, dtype=torch.long)
        beside["aspect_ratio_mask"] = torch.tensor([[[1] + [0] * (tiles - 1)]] * rows)
    pinpoints = getattr(model.config, "image_grid_pinpoints", None)
    if pinpoints is not None and size is not None:
        count = sys.modules[type(model).__module__].image_size_to_num_patches([size, size], pinpoints, sides[0])
        shape = (rows, count, 3, *sides)
    if size is not None and "image_sizes" in wanted:
        beside["image_sizes"] = torch.tensor([[size, size]] * rows)
    return {"pixel_values": ghost(shape, model.dtype), **beside}


def _count_features(model: Any, made: PromptInputs) -> int:
    """Ask the model how many tokens its images become."""
    features = getattr(model, "get_image_features", None) or getattr(model.base_model, "get_image_features", None)
    if features is None:
        raise RequestError(
            f"{type(model).__name__} does not tell how many tokens an image becomes.",
            "Profile it instead: `layerprof profile --weights random` runs it on real inputs.",
        )
    accepts = inspect.signature(features).parameters
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepts.values())
    given = {name: value for name, value in made.tensors.items() if anything or name in accepts}
    found = features(**given)
    # What goes to the decoder is in `pooler_output`, or nothing is done to the tower's own output (Llama 4).
    parts = [getattr(found, name, None) for name in ("pooler_output", "last_hidden_state")]
    return _rows(next((part for part in parts if part is not None), found))


def _rows(found: Any) -> int:
    """Count feature vectors in a tensor or a list of them."""
    shape = getattr(found, "shape", None)
    if shape is not None:
        return prod(shape[:-1])
    parts: list[Tensor] = list(found)
    return sum(_rows(part) for part in parts)


def _cross_attention(made: PromptInputs) -> None:
    import torch

    ids = made.tensors["input_ids"]
    tiles = made.tensors["aspect_ratio_mask"].shape[-1]
    made.tensors["cross_attention_mask"] = torch.ones(*ids.shape, 1, tiles, dtype=torch.long)


def _vision_config(config: Any) -> Any:
    """Return the configuration of the vision tower, or of what makes words of images; a vision-only model's is its own.

    An encoder-decoder keeps it with its encoder.
    """
    places = ((config, "vision_config"), (getattr(config, "encoder", None), "vision_config"), (config, "vq_config"))
    for owner, name in places:
        nested = getattr(owner, name, None)
        if nested is not None:
            return nested
    return config if hasattr(config, "patch_size") and not hasattr(config, "vocab_size") else None


def _image_token(config: Any) -> int:
    names = ("image_token_id", "image_token_index")
    found = next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)
    return 0 if found is None else found
