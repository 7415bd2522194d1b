"""Where a model came from, as a run keeps it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from layerprof.machine import stored

if TYPE_CHECKING:
    from layerprof.models.source import ModelSource

NOT_THE_MODELS = ("_name_or_path", "transformers_version", "quantization_config")


def of_source(source: ModelSource, model: Any) -> dict[str, Any]:
    """Return what a model was asked for as, and what it turned out to be."""
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
    adapter = source.found.adapter
    return own | ({"adapter": adapter.facts} if adapter else {}) | facts(model)


def _own(config: Any) -> Any:
    """Return what of a configuration is the model's, at every depth: not where it lies, nor how, nor what read it."""
    if isinstance(config, dict):
        return {name: _own(value) for name, value in config.items() if name not in NOT_THE_MODELS}
    return [_own(value) for value in config] if isinstance(config, (list, tuple)) else config


def facts(model: Any) -> dict[str, Any]:
    """Return what can be read off a live model, whoever loaded it."""
    import torch
    import transformers

    config = model.config.to_dict() if hasattr(model.config, "to_dict") else {}
    text = json.dumps(_own(config), sort_keys=True, default=str)
    return {
        "architecture": type(model).__name__,
        "model_type": config.get("model_type"),
        "parameters": stored.size(model),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
