"""A configuration -> the class of transformers that makes a model of it, and whether that model sees images."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from layerprof.errors import RequestError
from layerprof.machine import internals

PIXELS = re.compile(r"pixel_values$|_patches$")
"""Names of the parameters through which models are given images."""

MAPPINGS = {
    "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING",
    "AutoModel": "MODEL_MAPPING",
}
"""The auto classes of transformers, and the tables from configurations to models by which they choose."""


def knows(auto: str, config: Any) -> bool:
    """Tell whether an auto class of transformers, given by its name, has a model for a configuration."""
    import transformers

    return type(config) in getattr(transformers, MAPPINGS[auto])


def auto_class(config: Any) -> Any:
    """Return the transformers class that loads this configuration as a generative model.

    Raises RequestError for families that do not write text after reading a prompt (encoders, encoder-decoders).
    """
    import transformers

    return getattr(transformers, _auto_name(config))


def check_static_cache(config: Any) -> None:
    """Raise RequestError unless the decode steps of a configuration's model can be captured into a CUDA graph."""
    import transformers

    name = _auto_name(config)
    model_class = getattr(transformers, MAPPINGS[name])[type(config)]
    if not internals.keeps_its_shapes(model_class):
        raise RequestError(
            f"--optimization graph cannot be used with {model_class.__name__}: its decode steps have no fixed shapes "
            "or no static cache.",
            "Use --optimization sdpa or eager.",
        )


def _auto_name(config: Any) -> str:
    if knows("AutoModelForImageTextToText", config):
        return "AutoModelForImageTextToText"
    # Encoders such as BERT are registered as decoders too, for those who switch them over.
    encodes = knows("AutoModelForMaskedLM", config) and not getattr(config, "is_decoder", True)
    if knows("AutoModelForCausalLM", config) and not encodes and not getattr(config, "is_encoder_decoder", False):
        return "AutoModelForCausalLM"
    raise RequestError(
        f"A model of type '{config.model_type}' does not answer prompts.",
        "Use layerprof.LayerProfiler, which takes any module and your own loop.",
    )


def reads_images(config: Any) -> bool:
    """Tell by what its model's `forward` takes whether a configuration is of a model that sees images.

    Not every such configuration has a part of its own for the vision tower (Chameleon, Emu3, Fuyu).
    """
    import transformers

    if hasattr(config, "vision_config"):
        return config.vision_config is not None
    kinds = getattr(transformers, MAPPINGS[_auto_name(config)])[type(config)]
    return any(takes_pixels(kind.forward) for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))


def takes_pixels(forward: Callable[..., Any]) -> bool:
    """Tell whether a model's `forward` has a parameter for images, whole or cut into patches."""
    return any(PIXELS.search(name) for name in inspect.signature(forward).parameters)
