"""What the weights of a model are stored as, by layer; and what of them nobody can see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class WeightReading:
    """What a model's weights are stored as, after they were used: some packages rewrite them in the first call.

    `formats[name]` are the formats of a layer's weights with all inside it, the one of most bytes first;
    `unseen_inside[name]` by class how many numbers of them lie in what does not show its memory. `unseen[class]` is the
    same by place, each number once: the innermost found layer, or the module outside all. `parameters` are the model's.
    """

    formats: Mapping[str, str] = field(default_factory=dict)
    unseen: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unseen_inside: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    parameters: int = 0
