"""What a name stands for -> where its configuration, weights and processor lie, and whether all of them are there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerprof.demo import MODEL_FOLDER
from layerprof.errors import RequestError, did_you_mean
from layerprof.machine import packages
from layerprof.models import adapter, attention, checkpoint, names, random_weights
from layerprof.models.adapter import Adapter
from layerprof.models.attention import Plan
from layerprof.models.family import auto_class, reads_images
from layerprof.models.names import ARCHITECTURE, HUB_3B, REVISIONS, SUGGESTED, Kind, Named

DEMO_VOCABULARY = 576
SPECIAL = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
"""Ids in a Qwen configuration, and the tokens they stand for."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a model lies. `location` and `processor` are what `from_pretrained` takes: a folder or a hub id.

    `cached` says that the hub need not be asked. `adapter` is what is put onto the model after it is loaded.
    """

    name: str
    kind: Kind
    location: str
    processor: str
    revision: str | None = None
    config: Any = field(default=None, repr=False, compare=False)
    cached: bool = True
    why: str = ""
    adapter: Adapter | None = None

    @property
    def borrowed(self) -> bool:
        """Whether a model that is not the bundled one uses the bundled tokenizer."""
        return self.processor == str(MODEL_FOLDER) and self.kind != "demo"


def find(named: Named, weight_kind: str) -> Found:
    """Return where a model lies. Raises RequestError when it is incomplete or cannot be reached."""
    if named.kind == "hub" or named.place is None:
        return _hub(named.hub_id, named.revision, weight_kind)
    if named.kind == "folder":
        return _folder(named.name, named.place, weight_kind)
    why = "published configuration and the bundled tokenizer, no network needed" if named.kind != "demo" else ""
    return _with_config(Found(named.name, named.kind, str(named.place), str(MODEL_FOLDER), why=why))


def _folder(name: str, path: Path, weight_kind: str) -> Found:
    if adapter.is_adapter(path):
        return _adapted(name, path, weight_kind)
    checkpoint.check_folder(path, weight_kind)
    own = any((path / file).is_file() for file in checkpoint.TOKENIZER)
    found = _with_config(Found(name, "folder", str(path), str(path) if own else str(MODEL_FOLDER)))
    if not own and not _demo_fits(found.config):
        remedy = "Copy the tokenizer and processor files into it."
        raise RequestError(f"The model folder '{name}' has no tokenizer.", remedy)
    return found


def _adapted(name: str, path: Path, weight_kind: str) -> Found:
    """Find the base model of an adapter; it keeps its own kind and place, and takes the adapter's name."""
    own = adapter.read(name, path, weight_kind)
    try:
        wanted: names.Wanted = "random" if weight_kind == "random" else "pretrained"
        bundled = Path(own.base) == MODEL_FOLDER
        base = find(names.resolve("demo" if bundled else own.base, wanted), weight_kind)
    except RequestError as error:
        problem = f"The base model '{own.base}' of the adapter in '{name}' cannot be had: {error.problem}"
        raise RequestError(problem, error.remedy) from None
    why = ", ".join(filter(None, (base.why, own.told)))
    return dataclasses.replace(base, name=name, adapter=own, why=why)


def _demo_fits(config: Any) -> bool:
    """Whether the bundled tokenizer and image processor can serve a model that has none."""
    vocabulary = int(getattr(config.get_text_config(), "vocab_size", 0))
    if vocabulary < DEMO_VOCABULARY or not reads_images(config):
        return vocabulary >= DEMO_VOCABULARY
    return config.model_type in ("qwen2_vl", "qwen2_5_vl") and bool(config.vision_config.patch_size == 14)


def _hub(hub_id: str, revision: str | None, weight_kind: str) -> Found:
    """Find a hub model in the cache, or ask the hub for its commit."""
    for wanted in (revision,) if revision else (REVISIONS.get(hub_id), None):
        commit = checkpoint.cached(hub_id, wanted, weight_kind)
        if commit:
            return _with_config(Found(hub_id, "hub", hub_id, hub_id, commit, why="found in the local hub cache"))
    commit = ask_hub(hub_id, revision or REVISIONS.get(hub_id))
    return _with_config(Found(hub_id, "hub", hub_id, hub_id, commit, cached=False, why="from the hub"))


def ask_hub(hub_id: str, revision: str | None) -> str:
    """Return the commit that the hub has. Raises RequestError at once where it has none or cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return str(HfApi().model_info(hub_id, revision=revision, timeout=20).sha)
    except GatedRepoError:
        remedy = "Accept its terms on the hub, then run `hf auth login`."
        raise RequestError(f"The hub model {hub_id} is gated.", remedy) from None
    except RevisionNotFoundError:
        problem = f"The hub model {hub_id} has no revision '{revision}'."
        raise RequestError(problem, "Give a commit, tag or branch.") from None
    except RepositoryNotFoundError:
        raise _no_such_hub_model(hub_id) from None
    except Exception as error:  # the network's error classes change with the hub client's version
        raise _unreachable(hub_id, error) from None


def _no_such_hub_model(hub_id: str) -> RequestError:
    guess = did_you_mean(hub_id, SUGGESTED)
    return RequestError(f"There is no hub model '{hub_id}'.", f"{guess}Private models need `hf auth login`.")


def _unreachable(hub_id: str, error: Exception) -> RequestError:
    cause = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    random = "--weights random" if hub_id == HUB_3B else f"--model {ARCHITECTURE} --weights random"
    return RequestError(
        f"The hub model {hub_id} is not in the local cache, and the hub cannot be reached ({cause}).",
        f"Give a local folder as --model, or use {random} or --model demo, which need no network.",
    )


def _with_config(found: Found) -> Found:
    """Read the configuration into `found`. Raises RequestError for a family that transformers does not know."""
    config = _read_config(found)
    auto_class(config)
    if found.borrowed:
        borrow_ids(config)
    return dataclasses.replace(found, config=config)


def _read_config(found: Found) -> Any:
    from transformers import AutoConfig

    try:
        if found.kind == "architecture":
            return AutoConfig.for_model(**(checkpoint.read_json(Path(found.location)) or {}))
        return AutoConfig.from_pretrained(
            found.location, revision=found.revision, local_files_only=found.cached, trust_remote_code=False
        )
    except Exception as error:  # a configuration is checked by its own class, each with its own errors
        import transformers

        cause = " ".join(str(error).split())[:200]
        raise RequestError(
            f"transformers {transformers.__version__} cannot read the configuration of {found.name} ({cause}).",
            "Upgrade transformers; code inside a checkpoint is never run: load such a model yourself and use "
            "layerprof.LayerProfiler.",
        ) from None


def borrow_ids(config: Any) -> None:
    """Set a configuration's special token ids to the bundled tokenizer's, in place."""
    tokenizer = checkpoint.read_json(MODEL_FOLDER / "tokenizer.json") or {}
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    for name, token in SPECIAL.items():
        if hasattr(config, name):
            setattr(config, name, ids[token])
    text = config.get_text_config()
    text.bos_token_id = text.pad_token_id = ids["<|endoftext|>"]
    text.eos_token_id = ids["<|im_end|>"]


def skeleton(found: Found) -> Any:
    """Return a model of what was found, whose weights have shapes and no memory."""
    return random_weights.skeleton(auto_class(found.config), found.config)


def weight_bytes(found: Found) -> int | None:
    """Return the bytes of the weight files of what was found; None where they are not on this machine."""
    if found.kind == "hub":
        return checkpoint.weight_bytes(checkpoint.in_cache(found.location, found.revision))
    place = Path(found.location)
    return checkpoint.weight_bytes(checkpoint.in_folder(place)) if place.is_dir() else None


def parameter_count(found: Found, planned: Plan | None = None) -> int:
    """Return the configuration's parameters, tied ones once.

    Raises RequestError when no model can be made of it, or none with the attention that is planned.
    """
    family = auto_class(found.config)
    try:
        return random_weights.parameter_count(family, found.config, planned.told if planned else None)
    except Exception as error:
        if planned and (refused := attention.unsupported(planned, found.name, error)):
            raise refused from None
        if refused := packages.behind(error):
            raise refused from error
        cause = " ".join(str(error).split())[:200]
        raise RequestError(
            f"No model can be made of the configuration of {found.name} ({type(error).__name__}: {cause}).",
            "Check its config.json, and that transformers is recent enough for it.",
        ) from None
