"""What a cell may be asked: the names of its settings, and their values from a file or the command line."""

from __future__ import annotations

import tomllib
from typing import Any

from layerprof import settings
from layerprof.errors import RequestError
from layerprof.sweep.cells import PADDING_SIDES

NOT_A_CELLS = ("output",)
NO_AXES = ("skip_bad", "memory")
"""Settings that add to what a cell gives and change no other figure of it."""
CHOICES = (*(name for name in settings.Settings.model_fields if name not in NOT_A_CELLS), "padding_side")


def parse_assignments(pairs: list[str] | None, option: str) -> dict[str, tuple[str, ...]]:
    """Return `NAME=VALUE[,VALUE...]` pairs as they were typed; `vision=NAME,language=NAME` is one value of attention.

    Raises RequestError for one without `=` or with an unknown name.
    """
    found: dict[str, tuple[str, ...]] = {}
    for pair in pairs or []:
        name, sign, values = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not values:
            raise RequestError(f"{option} {pair} is not of the form NAME=VALUE.", f"Write e.g. {option} batch_size=16.")
        if name not in CHOICES:
            raise settings.unknown_choice("setting", name, CHOICES)
        split = _by_value(values) if name == "attention" else [value.strip() for value in values.split(",")]
        found[name] = (*found.get(name, ()), *split)
    return found


def _by_value(text: str) -> list[str]:
    """Return the attentions that commas join: the second tower's goes with the first one's, as far as it follows it."""
    found: list[str] = []
    for part in (one.strip() for one in text.split(",")):
        tower, sign, _ = part.partition("=")
        before = found[-1] if found else ""
        if sign and "=" in before and "," not in before and not before.startswith(tower):
            found[-1] = f"{before},{part}"
        else:
            found.append(part)
    return found


def typed(name: str, text: str) -> Any:
    """Return a setting's value from the command line as TOML would read it, or as text.

    Raises RequestError as `settings.build`.
    """
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return checked(name, value)


def checked(name: str, value: Any) -> Any:
    """Return a setting's value as it is. Raises RequestError for one that no cell can have."""
    check(name, value)
    return value


def check(name: str, value: Any) -> None:
    """Raise RequestError for a setting that no cell can have."""
    if name not in CHOICES:
        raise settings.unknown_choice("setting", name, CHOICES)
    if name == "padding_side":
        if value not in PADDING_SIDES:
            raise settings.unknown_choice("padding side", value, PADDING_SIDES)
        return
    if isinstance(value, bool) != (settings.Settings.model_fields[name].annotation is bool):
        raise RequestError(f"Setting '{name}' cannot be {value!r}.", "Write true and false for switches only.")
    settings.build(**settings.WITH.get(name, {}) | {name: value})
