"""A name, a file or a mapping -> the configuration of a model: nothing is downloaded but a `config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.demo import MODEL_FOLDER
from layerprof.errors import RequestError
from layerprof.models import adapter, find

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def read(source: str | Path | dict[str, Any] | PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of a model: bundled, a folder, a `config.json`, a mapping, or a hub id.

    Raises RequestError when it cannot be had, or when transformers does not know the model type.
    """
    if not isinstance(source, (str, Path, dict)):
        return source
    if isinstance(source, dict):
        return _known(source, "the given mapping")
    name = find.ARCHITECTURE if source == "auto" else str(source)
    if name in (find.ARCHITECTURE, find.HUB_3B):
        return _known(json.loads(find.ARCHITECTURE_FILE.read_text(encoding="utf-8")), name)
    path = MODEL_FOLDER if name == "demo" else Path(name)
    if path.is_dir() and adapter.is_adapter(path):
        base = adapter.read(name, path, "random").base
        raise RequestError(
            f"The folder '{name}' holds an adapter, which is known once it is loaded.",
            f"Give its base model, {base}, whose layers have the same names; `layerprof profile` measures the adapter.",
        )
    path = path / "config.json" if path.is_dir() else path
    if path.is_file():
        return _file(path)
    if path.suffix == ".json" or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise RequestError(
            f"There is no model '{name}'.",
            "Give demo, qwen2.5-vl-3b, a hub id (owner/name), a folder with a config.json, or a config.json.",
        )
    return _hub(*name.partition("@")[::2])


def _hub(hub_id: str, revision: str) -> PreTrainedConfig:
    """Read a hub model's configuration; the hub is asked once, since its client tries again for half a minute."""
    from huggingface_hub import try_to_load_from_cache
    from transformers import AutoConfig

    wanted = revision or None
    if not isinstance(try_to_load_from_cache(hub_id, "config.json", revision=wanted), str):
        try:
            wanted = find.ask_hub(hub_id, wanted)
        except RequestError as error:
            ways = "Check the id and the network, or give a folder that holds its config.json, demo or qwen2.5-vl-3b."
            raise RequestError(error.problem, ways) from error
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(hub_id, revision=wanted, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RequestError(
            f"The configuration of '{hub_id}' cannot be had: {first}",
            "Check the id and the network, or give a folder that holds its config.json.",
        ) from error
    return config


def _file(path: Path) -> PreTrainedConfig:
    """Read a configuration as transformers does: numbers such as infinity are written in a way of its own."""
    from transformers import AutoConfig

    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise RequestError(f"'{path}' is no readable JSON: {error}.", "Give the model's config.json.") from error
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    except Exception as error:  # a configuration is checked by its own class, each with its own errors
        raise _unreadable(str(path), kind, error) from error
    return config


def _known(raw: dict[str, Any], name: str) -> PreTrainedConfig:
    from transformers import AutoConfig

    rest = dict(raw)
    kind = rest.pop("model_type", None)
    try:
        config: PreTrainedConfig = AutoConfig.for_model(kind, **rest)
    except Exception as error:  # as with files
        raise _unreadable(name, kind, error) from error
    return config


def _unreadable(name: str, kind: str | None, error: Exception) -> RequestError:
    cause = " ".join(str(error).split())[:200]
    return RequestError(
        f"transformers cannot read the configuration of {name} (model_type {kind!r}: {cause}).",
        "Update transformers, or check the file; models that bring their own code are not supported here.",
    )
