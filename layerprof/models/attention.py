"""What is asked of attention -> what transformers is told, for each part of a configuration; checked before loading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layerprof.attention import TOWERS, TowerAttention, theirs
from layerprof.errors import RequestError
from layerprof.machine import placement
from layerprof.records import Tower

SEES_PIXELS = re.compile(r"(^|_)(visual|vision|vit|image|img|pixel|video|vq|vqvae|q_?former|perceiver)(_|\d|$)")
"""Names of the parts of a configuration that belong to the vision tower, connectors with an attention included."""
CAPTURED = ("compile", "graph")
"""Optimisations that need a cache of fixed length, with which not every attention of the decoder works."""
FIXED_LENGTH = ("eager", "sdpa")
REFUSED = re.compile(r"does not support|attention implementation|attn_implementation|[Ff]lash ?[Aa]tt|flex_attention")
"""What transformers says where a model has no such attention, or its package cannot be used."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which attention each tower is to run, by our names; None for a tower that the model does not have.

    `told` is what transformers takes: one name, or one for each part of the configuration. `options` says of each
    tower which option chose its attention.
    """

    vision: str | None
    language: str | None
    told: str | dict[str, Any]
    options: Mapping[Tower, str]

    def __str__(self) -> str:
        """Return it as `--attention` takes it, every `auto` resolved."""
        towers = {tower: name for tower in TOWERS if (name := getattr(self, tower))}
        return str(TowerAttention(**towers)) if len(towers) > 1 else next(iter(towers.values()))

    def of(self) -> Iterator[tuple[Tower, str]]:
        """Yield each tower with its attention."""
        for tower in TOWERS:
            if name := getattr(self, tower):
                yield tower, name


def plan(asked: TowerAttention, optimization: str, config: Any) -> Plan:
    """Return what each tower of a model is to run; what is not asked for is what the optimisation says.

    Raises RequestError where a tower is named that the model does not have.
    """
    usual = placement.ATTENTION[optimization]
    sees = any(tower == "vision" for tower in _towers(config))
    if asked.vision and asked.vision != asked.language and not sees:
        raise RequestError(
            f"{asked.option('vision')} cannot be: a model of type '{config.model_type}' has no vision tower with an "
            "attention of its own.",
            "Name the attention alone, or that of language=NAME.",
        )
    chosen = {"vision": asked.vision or usual, "language": asked.language or usual}
    options = {
        tower: asked.option(tower) if getattr(asked, tower) else f"--optimization {optimization}" for tower in TOWERS
    }
    names = {tower: theirs(name) for tower, name in chosen.items()}
    told: str | dict[str, Any] = names["language"]
    if sees and names["vision"] != names["language"]:
        told = _by_part(config, "language", names)
    return Plan(chosen["vision"] if sees else None, chosen["language"], told, options)


def check(planned: Plan, optimization: str, on: str) -> None:
    """Raise RequestError where a device or a package is missing for an attention, or it does not go with the rest."""
    for tower, name in planned.of():
        placement.check_attention(name, planned.options[tower], on)
    if optimization in CAPTURED and planned.language not in FIXED_LENGTH:
        raise RequestError(
            f"--optimization {optimization} needs a cache of fixed length, with which {planned.options['language']} "
            "does not work.",
            "Use language=sdpa or language=eager with it, or --optimization eager.",
        )


def check_dtype(planned: Plan, chosen: str) -> None:
    """Raise RequestError where an attention does not take the number format."""
    for tower, name in planned.of():
        placement.check_attention_dtype(name, planned.options[tower], chosen)


def differences(planned: Plan, ran: Mapping[Tower, str]) -> Iterator[str]:
    """Yield a sentence for each tower that runs another attention than it was told; one without any says nothing."""
    for tower, name in planned.of():
        if (runs := ran.get(tower, name)) != name:
            yield f"The {tower} tower runs {runs} attention where {planned.options[tower]} asks for {name}."


def unsupported(planned: Plan, name: str, error: Exception) -> RequestError | None:
    """Return the error for a model whose class has no such attention; None where something else went wrong.

    A kernel of the hub is fetched where the model is made, so with one that is what goes wrong first.
    """
    cause = " ".join(str(error).split())
    from_hub = any("/" in chosen for _, chosen in planned.of())
    if not from_hub and (not isinstance(error, (ValueError, ImportError)) or not REFUSED.search(cause)):
        return None
    first = re.split(r"\. |, but|\.$", cause)[0][:200]
    options = " and ".join(dict.fromkeys(planned.options[tower] for tower, _ in planned.of()))
    return RequestError(f"The model {name} cannot run {options} ({first}).", "Use --attention eager, which all have.")


def _by_part(config: Any, tower: str, names: dict[str, str]) -> str | dict[str, Any]:
    """Return one name, or names by the parts of a configuration (at every depth), the whole's under the empty one."""
    parts = {key: _by_part(part, _tower(key, part, tower), names) for key, part in _parts(config)}
    return {"": names[tower], **parts} if parts else names[tower]


def _towers(config: Any, tower: str = "language") -> Iterator[str]:
    """Yield the tower of every part of a configuration, at every depth."""
    for key, part in _parts(config):
        own = _tower(key, part, tower)
        yield own
        yield from _towers(part, own)


def _parts(config: Any) -> Iterator[tuple[str, Any]]:
    for key in getattr(config, "sub_configs", ()):
        part = getattr(config, key, None)
        if hasattr(part, "sub_configs"):
            yield key, part


def _tower(key: str, part: Any, around: str) -> str:
    """Return the tower of a part by its name, or, where that tells nothing (`encoder`), by what its model is given."""
    if around == "vision" or SEES_PIXELS.search(key.removesuffix("_config")):
        return "vision"
    if key in ("encoder", "encoder_config"):
        import transformers

        kinds = transformers.MODEL_MAPPING.get(type(part), ())
        first = kinds[0] if isinstance(kinds, tuple) and kinds else kinds
        return "vision" if getattr(first, "main_input_name", "") == "pixel_values" else around
    return around
