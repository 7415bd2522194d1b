"""A name, a file or a mapping -> the configuration of a model: nothing is downloaded but a `config.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.errors import RequestError
from layerprof.models import adapter, checkpoint, names
from layerprof.models.find import ask_hub
from layerprof.models.names import Named

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration, what it is called, and `why` it was chosen where nobody named it."""

    config: Any
    name: str
    why: str = ""


def find(source: str | Path | dict[str, Any] | PreTrainedConfig) -> Configured:
    """Return the configuration of a model: `auto`, bundled, a folder, a `config.json`, a mapping, or a hub id.

    Names are resolved as everywhere (`names.resolve`). Raises RequestError when it cannot be had, or when transformers
    does not know the model type.
    """
    if not isinstance(source, (str, Path, dict)):
        return Configured(source, source.model_type)
    if isinstance(source, dict):
        config = _known(source, "the given mapping")
        return Configured(config, config.model_type)
    named = names.resolve(str(source), "configuration")
    return Configured(_of(named), named.name if named.why else str(source), named.why)


def _of(named: Named) -> PreTrainedConfig:
    if named.kind == "architecture":
        return _known(json.loads(names.ARCHITECTURE_FILE.read_text(encoding="utf-8")), named.name)
    if named.place is None:
        return _hub(named.hub_id, named.revision)
    if named.kind == "file":
        return _file(named.place)
    if adapter.is_adapter(named.place):
        base = adapter.read(named.name, named.place, "random").base
        raise RequestError(
            f"The folder '{named.name}' holds an adapter, which is known once it is loaded.",
            f"Give its base model, {base}, whose layers have the same names; `layerprof profile` measures the adapter.",
        )
    path = named.place / "config.json"
    if not path.is_file():
        raise checkpoint.not_a_checkpoint(named.place)
    return _file(path)


def _hub(hub_id: str, wanted: str | None) -> PreTrainedConfig:
    """Read a hub model's configuration; the hub is asked once, since its client tries again for half a minute."""
    from huggingface_hub import try_to_load_from_cache
    from transformers import AutoConfig

    if not isinstance(try_to_load_from_cache(hub_id, "config.json", revision=wanted), str):
        try:
            wanted = ask_hub(hub_id, wanted)
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
