"""The words that every record is made of: phases, kinds of layers, how a joule was obtained, and what a record is."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

Tower = Literal["vision", "language"]


class Phase(StrEnum):
    """The parts of answering: encode the image, read the prompt, write the answer; and the last two in one step.

    A step is mixed that works on the prompts of some requests and on the answers of others at once, as continuous
    batching makes them.
    """

    VISION = "vision"
    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


IN_TURN = (Phase.VISION, Phase.PREFILL, Phase.DECODE)
"""The phases that follow each other within one `generate()`, in their order."""


class Quality(StrEnum):
    """How a joule was obtained. Never mixed within one figure."""

    MEASURED = "measured"
    REPLAYED = "replayed"
    ATTRIBUTED = "attributed"
    ESTIMATED = "estimated"
    UNAVAILABLE = "unavailable"


BLOCK_KINDS = ("vision_block", "decoder_layer", "encoder_layer")
"""Kinds that the ledger sums under `layers`; every other kind is the named rest."""


class Record(BaseModel):
    """A frozen, checked part of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")
