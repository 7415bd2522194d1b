"""A model's name -> where its configuration, weights and processor lie, and whether all of them are there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from layerprof.demo import MODEL_FOLDER
from layerprof.errors import RequestError, did_you_mean, nearest, suggestion
from layerprof.models import attention, checkpoint, random_weights
from layerprof.models.attention import Plan
from layerprof.models.family import auto_class, reads_images

ARCHITECTURE = "qwen2.5-vl-3b"
ARCHITECTURE_FILE = Path(__file__).parent / "qwen2_5_vl_3b.json"
HUB_3B = "Qwen/Qwen2.5-VL-3B-Instruct"
REVISIONS = {HUB_3B: "66285546d2b821cf421d4f5eb2576359d3770cd3"}
"""Commits that a hub id without a revision means."""
SUGGESTED = ("auto", "demo", ARCHITECTURE, HUB_3B, "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2-VL-2B-Instruct")
DEMO_VOCABULARY = 576
SPECIAL = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
"""Ids in a Qwen configuration, and the tokens they stand for."""

Kind = Literal["demo", "architecture", "hub", "folder"]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a model lies. `location` and `processor` are what `from_pretrained` takes: a folder or a hub id.

    `cached` says that the hub need not be asked.
    """

    name: str
    kind: Kind
    location: str
    processor: str
    revision: str | None = None
    config: Any = field(default=None, repr=False, compare=False)
    cached: bool = True
    why: str = ""

    @property
    def borrowed(self) -> bool:
        """Whether a model that is not the bundled one uses the bundled tokenizer."""
        return self.processor == str(MODEL_FOLDER) and self.kind != "demo"


def find(name: str, weight_kind: str) -> Found:
    """Return where a model lies. Raises RequestError when it is unknown, incomplete or cannot be reached."""
    asked = name.strip()
    alias = asked.lower().removeprefix("qwen/").removesuffix("-instruct")
    if asked.lower() == "demo":
        return _with_config(Found("demo", "demo", str(MODEL_FOLDER), str(MODEL_FOLDER)))
    if alias == ARCHITECTURE and weight_kind == "random":
        why = "published configuration and the bundled tokenizer, no network needed"
        return _with_config(Found(ARCHITECTURE, "architecture", str(ARCHITECTURE_FILE), str(MODEL_FOLDER), why=why))
    if alias == ARCHITECTURE and "/" not in asked:
        asked = HUB_3B
    path = Path(asked).expanduser()
    if path.is_dir():
        return _folder(asked, path, weight_kind)
    if path.exists():
        raise RequestError(f"--model {name} is a file.", "Give the folder that it lies in.")
    if asked.startswith((".", "/", "~")) or asked.endswith("/") or asked.count("/") > 1:
        raise RequestError(f"The model folder '{name}' does not exist.", "Check the path, or give a hub id.")
    hub_id, _, revision = asked.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        raise _unknown(name)
    return _hub(hub_id, revision or None, weight_kind)


def _unknown(name: str) -> RequestError:
    lowered = {suggestion.lower(): suggestion for suggestion in SUGGESTED}
    lowered |= {suggestion.rpartition("/")[2].lower(): suggestion for suggestion in SUGGESTED}
    guess = suggestion(f"'{lowered[near]}'" for near in nearest(name.lower(), lowered, cutoff=0.4))
    return RequestError(
        f"Unknown model '{name}'.",
        f"{guess}Give auto, demo, {ARCHITECTURE}, a hub id (owner/name) or the folder of a checkpoint.",
    )


def _folder(name: str, path: Path, weight_kind: str) -> Found:
    checkpoint.check_folder(path, weight_kind)
    own = any((path / file).is_file() for file in checkpoint.TOKENIZER)
    found = _with_config(Found(name, "folder", str(path), str(path) if own else str(MODEL_FOLDER)))
    if not own and not _demo_fits(found.config):
        remedy = "Copy the tokenizer and processor files into it."
        raise RequestError(f"The model folder '{name}' has no tokenizer.", remedy)
    return found


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
    import dataclasses

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
        cause = " ".join(str(error).split())[:200]
        raise RequestError(
            f"No model can be made of the configuration of {found.name} ({type(error).__name__}: {cause}).",
            "Check its config.json, and that transformers is recent enough for it.",
        ) from None
