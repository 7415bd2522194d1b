"""What a model's name stands for: one answer for everything that takes `--model`; only `auto` looks at the machine."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layerprof.demo import MODEL_FOLDER
from layerprof.errors import RequestError, nearest, suggestion
from layerprof.machine import placement

ARCHITECTURE = "qwen2.5-vl-3b"
ARCHITECTURE_FILE = Path(__file__).parent / "qwen2_5_vl_3b.json"
HUB_3B = "Qwen/Qwen2.5-VL-3B-Instruct"
REVISIONS = {HUB_3B: "66285546d2b821cf421d4f5eb2576359d3770cd3"}
"""Commits that a hub id without a revision means."""
SUGGESTED = ("auto", "demo", ARCHITECTURE, HUB_3B, "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2-VL-2B-Instruct")
AUTO_NEEDS_BYTES = 10 * 10**9
"""Free GPU memory for `auto` to choose the 3B model: 7.5 GB of fp16 weights, and room to work."""

Kind = Literal["demo", "architecture", "hub", "folder", "file"]
Wanted = Literal["pretrained", "random", "configuration"]
"""What a name is wanted for: weights as published, random ones, or a configuration alone, for which a file will do."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for: a bundled folder or file, one of the user's (`place`), or a hub id with its revision.

    `why` says what `auto` chose, and the reason; empty where a model was named.
    """

    name: str
    kind: Kind
    place: Path | None = None
    revision: str | None = None
    why: str = ""

    @property
    def hub_id(self) -> str:
        """The id of a hub model."""
        return self.name


def resolve(name: str, wanted: Wanted, device: str = "auto") -> Named:
    """Return what a name stands for; `auto` is chosen by the free memory of the device.

    Raises RequestError for a name that stands for nothing, with the nearest, for a path that is not there, and for a
    device that is unknown or not there.
    """
    if name.strip().lower() == "auto":
        chosen, why = _automatic(placement.device(device), wanted)
        return dataclasses.replace(resolve(chosen, wanted), why=why)
    asked = name.strip()
    alias = asked.lower().removeprefix("qwen/").removesuffix("-instruct")
    if asked.lower() == "demo":
        return Named("demo", "demo", MODEL_FOLDER)
    if alias == ARCHITECTURE and wanted != "pretrained":
        return Named(ARCHITECTURE, "architecture", ARCHITECTURE_FILE)
    if alias == ARCHITECTURE and "/" not in asked:
        asked = HUB_3B
    path = Path(asked).expanduser()
    if path.is_dir():
        return Named(asked, "folder", path)
    if path.exists():
        return _file(asked, path, wanted)
    if asked.startswith((".", "/", "~")) or asked.endswith(("/", ".json")) or asked.count("/") > 1:
        raise RequestError(f"There is no model at '{name}': the path does not exist.", "Check it, or give a hub id.")
    hub_id, _, revision = asked.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        raise _unknown(name, wanted)
    return Named(hub_id, "hub", revision=revision or None)


def _automatic(on: str, wanted: Wanted) -> tuple[str, str]:
    """Choose between the 3B model and the bundled one by the GPU's free memory."""
    if on == "cpu":
        return "demo", "auto chose the bundled model, since there is no GPU"
    free = placement.free_bytes(on) or 0
    if free < AUTO_NEEDS_BYTES:
        return "demo", f"auto chose the bundled model, since {on} has only {free / 1e9:.1f} GB free"
    return HUB_3B if wanted == "pretrained" else ARCHITECTURE, f"auto chose it, since {on} has {free / 1e9:.0f} GB free"


def _file(name: str, path: Path, wanted: Wanted) -> Named:
    if wanted != "configuration":
        raise RequestError(f"--model {name} is a file.", "Give the folder that it lies in.")
    return Named(name, "file", path)


def _unknown(name: str, wanted: Wanted) -> RequestError:
    lowered = {suggestion.lower(): suggestion for suggestion in SUGGESTED}
    lowered |= {suggestion.rpartition("/")[2].lower(): suggestion for suggestion in SUGGESTED}
    guess = suggestion(f"'{lowered[near]}'" for near in nearest(name.lower(), lowered, cutoff=0.4))
    ways = "a folder with a config.json, or such a file" if wanted == "configuration" else "the folder of a checkpoint"
    return RequestError(
        f"There is no model '{name}'.", f"{guess}Give auto, demo, {ARCHITECTURE}, a hub id (owner/name), or {ways}."
    )
