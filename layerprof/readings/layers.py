"""The layers that are found in a live model, and how what is read is told by them."""

from __future__ import annotations

from dataclasses import dataclass, field

from layerprof.records import Phase, Tower

Key = tuple[str, Phase]
"""A layer's name and a phase: what has a row."""

Chain = tuple[tuple[str, ...], Phase]
"""Names of located layers whose calls held one another, outermost first, and the phase of the innermost call."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A unit that gets a row. `name` is its key in `named_modules()` of the loaded model.

    A module that stands in the model under several names has the first of them, and the one that a selector asked by
    as `alias`.

    `kind` is `vision_block`, `decoder_layer`, `encoder_layer` (of a language tower that has an encoder), one of the
    named rest (`patch_embed`, `merger`, `embed_tokens`, `norm`, `lm_head`, ...) or, for a submodule that a selector
    asked for, `module`. `index` counts within kind and tower from 0. `recurs` is the class of the part of a block that
    keeps a state from position to position (a state space, a delta rule), empty where it has none.
    """

    name: str
    tower: Tower
    kind: str
    index: int
    alias: str = field(default="", compare=False)
    recurs: str = field(default="", compare=False)

    @property
    def found(self) -> bool:
        """Whether it is a layer by the model's structure, not a submodule that a selector asked for."""
        return self.kind != "module"

    @property
    def shown(self) -> str:
        """The name that its row has."""
        return self.alias or self.name
