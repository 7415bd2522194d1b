"""What every walk gives of a batch: what was asked, how long it took to make and to answer, and what came out."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from layerprof.records import Fed


@dataclass(frozen=True, slots=True)
class Generated:
    """What a batch was answered.

    Per row: `answers` is the text, `answer_tokens` its ids up to the end mark, `new_tokens` how many were generated
    (the end mark included), `truncated` whether the limit came before an end mark. `first_token_s` is the time from the
    call until the first token's logits were there, `step_times_s` that of each further one, for the batch as a whole.
    `bad_logits` says that logits were NaN or infinite; None where it was not looked at.
    """

    answers: tuple[str, ...]
    answer_tokens: tuple[tuple[int, ...], ...]
    new_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    first_token_s: float | None
    step_times_s: tuple[float, ...]
    bad_logits: bool | None = None


@dataclass(frozen=True, slots=True)
class Questions:
    """What a batch was asked, row by row, without pictures and tensors: what is kept of a batch that is over.

    `prompts` is the user's text, `prompt_tokens` the real tokens (images included), `pad_tokens` the padding on the
    left, `image_tokens` those that stand for its images and videos, `fed` what these are (in the order of the prompt),
    `question_cut` the tokens that the budget cut, `keys` what tells the same sample in another run (`records.Sample`).
    `shape` is equal for batches whose inputs have equal shapes, image grids and padding.
    """

    index: int
    ids: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    choices: tuple[tuple[str, ...], ...]
    prompts: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    pad_tokens: tuple[int, ...]
    image_tokens: tuple[int, ...]
    question_cut: tuple[int, ...]
    keys: tuple[str, ...] = ()
    fed: tuple[tuple[Fed, ...], ...] = ()
    shape: Hashable = None

    @property
    def rows(self) -> int:
        """How many samples are asked together."""
        return len(self.ids)

    @property
    def length(self) -> int:
        """Positions of a prompt, padding included."""
        return max((a + b for a, b in zip(self.prompt_tokens, self.pad_tokens, strict=True)), default=0)


@dataclass(frozen=True, slots=True)
class Made:
    """Seconds that the making of a batch took.

    `read_s` decodes the images, `process_s` makes tensors of images and prompts, `copy_s` brings them to the device
    (timed there on a GPU). `wall_s` is all of it by the host's clock, what lies between included.
    """

    read_s: float
    process_s: float
    copy_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Walked:
    """One batch answered: host seconds of its `generate()` with the device synchronised, and what came out.

    `wall_s` is from before the answering to after it, what stands around `generate()` included; None where not taken.
    """

    rows: int
    latency_s: float
    generated: Generated
    wall_s: float | None = None
