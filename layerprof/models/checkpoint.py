"""Is a checkpoint whole? Checked from file names, sizes and headers, before any weight is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerprof.errors import RequestError

TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
PROCESSOR = ("preprocessor_config.json", "processor_config.json")
SINGLE = ("model.safetensors", "pytorch_model.bin")
LFS = b"version https://git-lfs"

Find = Callable[[str], Path | None]
"""File name -> where it lies, None when it is not there."""


def check_folder(folder: Path, weights: str) -> None:
    """Raise RequestError naming everything that the folder lacks to be loaded; random weights need none."""
    if not (folder / "config.json").is_file():
        raise not_a_checkpoint(folder)

    missing = problems(in_folder(folder), weights)
    if missing:
        only_weights = all("weight" in item or "shard" in item for item in missing)
        remedy = "Copy the missing files into the folder" + (", or use --weights random." if only_weights else ".")
        raise RequestError(f"The model folder '{folder}' is incomplete: {'; '.join(missing)}.", remedy)


def problems(find: Find, weights: str) -> list[str]:
    """Return what is missing or broken, in words; `find` looks a file up in a folder or in the hub cache."""
    config = read_json(find("config.json"))
    if config is None:
        return ["config.json is not readable JSON"]
    found = [] if weights == "random" else weight_problems(find)
    if weights != "random" and not any(find(name) for name in TOKENIZER):
        found.append("no tokenizer (tokenizer.json)")
    if weights != "random" and "vision_config" in config and not any(find(name) for name in PROCESSOR):
        found.append("no image processor (preprocessor_config.json)")
    return found


def weight_problems(find: Find) -> list[str]:
    """Return what is wrong with the weight files: none there, shards missing, files cut short."""
    for name in SINGLE:
        index = find(f"{name}.index.json")
        if index is not None:
            return _shard_problems(find, index)
        single = find(name)
        if single is not None:
            broken = broken_file(single)
            return [f"weights {name}: {broken}"] if broken else []
    return ["no weights (model.safetensors)"]


def _shard_problems(find: Find, index: Path) -> list[str]:
    table = read_json(index)
    shards = sorted(set((table or {}).get("weight_map", {}).values()))
    if not shards:
        return [f"weights index {index.name} lists no files"]
    found = []
    for shard in shards:
        file = find(shard)
        broken = "missing" if file is None else broken_file(file)
        if broken:
            found.append(f"shard {shard}: {broken}")
    return found


def weight_bytes(find: Find) -> int | None:
    """Return the bytes of a checkpoint's weight files; None where one of them is not at hand."""
    for name in SINGLE:
        index = find(f"{name}.index.json")
        names = sorted(set((read_json(index) or {}).get("weight_map", {}).values())) if index else [name]
        files = [find(one) for one in names]
        if names and all(files):
            return sum(file.stat().st_size for file in files if file)
    return None


def broken_file(file: Path) -> str | None:
    """Return what is wrong with a weight file, None when it is whole; no weight is read."""
    import safetensors

    size = file.stat().st_size
    with file.open("rb") as opened:
        if opened.read(8).startswith(LFS[:8]):
            return "a git-lfs pointer instead of the file (run `git lfs pull`)"
    if file.suffix != ".safetensors":
        return "empty" if size == 0 else None
    try:
        with safetensors.safe_open(file, framework="numpy"):
            return None
    except safetensors.SafetensorError:
        return _damage(file, size)


def _damage(file: Path, size: int) -> str:
    """Say in words what ails a file that safetensors refuses: its error does not tell how much is there of how much.

    A safetensors file is an 8-byte little-endian header length, the JSON header with each tensor's [begin, end), the
    data.
    """
    with file.open("rb") as opened:
        start = opened.read(8)
        if len(start) < 8:
            return "empty or cut short"
        length = int.from_bytes(start, "little")
        if length > size - 8:
            return f"cut short at {size} bytes"
        try:
            header = json.loads(opened.read(length))
            end = max((item["data_offsets"][1] for key, item in header.items() if key != "__metadata__"), default=0)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            return "not a safetensors file"
    whole = 8 + length + end
    if size == whole:
        return "not a safetensors file"
    return f"cut short at {size} of {whole} bytes" if size < whole else f"{size} bytes long, and {whole} were due"


def read_json(file: Path | None) -> dict[str, Any] | None:
    """Return a JSON object, None when the file is missing or holds anything else."""
    try:
        loaded = json.loads(file.read_text(encoding="utf-8")) if file else None
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def not_a_checkpoint(folder: Path) -> RequestError:
    """Return the error for a folder without config.json, with what it seems to be."""
    problem = f"The model folder '{folder}' has no config.json"
    if not any(folder.iterdir()):
        return RequestError(f"{problem}; it is empty.", "Give a folder with a Hugging Face checkpoint.")
    if any(folder.glob("*.gguf")):
        return RequestError(f"{problem}; it holds a GGUF file.", "Give the Hugging Face checkpoint it was made from.")
    inner = sorted(file.parent for file in folder.glob("*/config.json")) + sorted(
        file.parent for file in folder.glob("snapshots/*/config.json")
    )
    if inner:
        return RequestError(f"{problem}; '{inner[-1]}' has one.", f"Give --model {inner[-1]}.")
    return RequestError(f"{problem}.", "Give a folder with a Hugging Face checkpoint: config.json, weights, tokenizer.")


# --- the hub cache ----------------------------------------------------------------------------------------------


def cached(hub_id: str, revision: str | None, weights: str) -> str | None:
    """Return the commit of a hub model whose files are all in the local cache, None when any is missing."""
    find = in_cache(hub_id, revision)
    config = find("config.json")
    if config is None or problems(find, weights):
        return None
    return config.parent.name  # the cache keeps each commit in a folder named after it


def in_cache(hub_id: str, revision: str | None) -> Find:
    """Return what looks the files of a hub model up in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    def find(name: str) -> Path | None:
        found = try_to_load_from_cache(hub_id, name, revision=revision)
        return Path(found) if isinstance(found, str) else None

    return find


def in_folder(folder: Path) -> Find:
    """Return what looks files up in a folder."""
    return lambda name: folder / name if (folder / name).is_file() else None
