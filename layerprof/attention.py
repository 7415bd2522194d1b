"""What may be asked of attention: one implementation for both towers, or one for each; as text, with nothing loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from layerprof.errors import RequestError, did_you_mean
from layerprof.records import Tower

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "eager": "eager",
        "sdpa": "sdpa",
        "flash": "flash_attention_2",
        "flash3": "flash_attention_3",
        "flex": "flex_attention",
    }
)
"""Our names, and those of transformers."""
OUR_NAMES = {theirs: ours for ours, theirs in NAMES.items()}
AUTO = "auto"
TOWERS: tuple[Tower, ...] = ("vision", "language")
KERNEL = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?(:[\w.-]+)?", re.ASCII)
"""A kernel of the hub, as transformers takes it: `owner/name`, with a revision and a function where wanted."""


@dataclass(frozen=True, slots=True)
class TowerAttention:
    """What is asked of each tower: one of `NAMES`, a kernel of the hub, or None where the optimization decides."""

    vision: str | None = None
    language: str | None = None

    def __str__(self) -> str:
        """Return the one way to write it: `auto`, `sdpa`, `vision=sdpa,language=flash`."""
        if self.vision == self.language:
            return self.vision or AUTO
        told = ((tower, getattr(self, tower)) for tower in TOWERS)
        return ",".join(f"{tower}={name}" for tower, name in told if name)

    def option(self, tower: str) -> str:
        """Return the option as it was given for a tower, to stand in a message."""
        name = getattr(self, tower)
        return f"--attention {name}" if self.vision == self.language else f"--attention {tower}={name}"


def parse(text: str) -> TowerAttention:
    """Return what `NAME` or `vision=NAME,language=NAME` asks for; a tower that is not named is left to `auto`.

    Raises RequestError, with the nearest, for names and towers that do not exist, and for anything of another form.
    """
    if "=" not in text:
        if "," in text:
            raise _form(text)
        name = _name(text)
        return TowerAttention(name, name)
    found: dict[str, str | None] = {}
    for part in text.split(","):
        tower, sign, name = (piece.strip() for piece in part.partition("="))
        if not sign or not name:
            raise _form(text)
        if tower.lower() not in TOWERS:
            guess = did_you_mean(tower.lower(), TOWERS, cutoff=0.5)
            raise RequestError(f"Unknown tower '{tower}' in --attention {text}.", f"{guess}Choose vision or language.")
        if tower.lower() in found:
            raise RequestError(f"--attention {text} names {tower.lower()} twice.", "Name each tower once.")
        found[tower.lower()] = _name(name)
    return TowerAttention(**found)


def _name(text: str) -> str | None:
    name = text.strip()
    lowered = name.lower()
    if lowered == AUTO:
        return None
    if lowered in NAMES or lowered in OUR_NAMES:
        return OUR_NAMES.get(lowered, lowered)
    if KERNEL.fullmatch(name):
        return name
    guess = did_you_mean(lowered, (AUTO, *NAMES), cutoff=0.5)
    raise RequestError(
        f"Unknown attention '{name}'.",
        f"{guess}Choose one of: {AUTO}, {', '.join(NAMES)}, or a kernel of the hub (owner/name).",
    )


def _form(text: str) -> RequestError:
    return RequestError(
        f"--attention {text} is not of the form NAME or vision=NAME,language=NAME.",
        "Write e.g. --attention sdpa, or --attention vision=sdpa,language=eager.",
    )


def theirs(name: str) -> str:
    """Return transformers' name of an implementation."""
    return NAMES.get(name, name)


def ours(name: str) -> str:
    """Return our name of an implementation of transformers, its own where we have none."""
    return OUR_NAMES.get(name, name)


def shown(ran: object) -> str:
    """Return in words what a run tells of attention: `sdpa`, `vision sdpa, language eager`; empty where nothing.

    Older runs tell one implementation, as transformers calls it, of the whole model.
    """
    if isinstance(ran, str):
        return ours(ran)
    if not isinstance(ran, Mapping):
        return ""
    told = {tower: str(ran[tower]) for tower in TOWERS if ran.get(tower)}
    if len(set(told.values())) == 1 and len(told) == len(TOWERS):
        return told["vision"]
    return ", ".join(f"{tower} {name}" for tower, name in told.items())


def differing(asked: object, ran: object) -> list[str]:
    """Return a sentence for each tower of a run that ran another attention than was asked for, every `auto` resolved.

    None for a tower without attention, nor for older runs, which do not tell the towers apart.
    """
    if not isinstance(asked, str) or not isinstance(ran, Mapping):
        return []
    wanted = parse(asked)
    pairs = ((tower, getattr(wanted, tower), ran.get(tower)) for tower in TOWERS)
    return [
        f"the {tower} tower ran {got} attention, not {name}"
        for tower, name, got in pairs
        if name and got and got != name
    ]
