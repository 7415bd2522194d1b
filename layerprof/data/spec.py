"""The words of a dataset: a sample, how it is asked, what is known of a dataset, and the samples of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL import Image

Picture = Callable[[], "Image.Image"]
"""Opens an image, anew each time, and holds no pixels itself. Raises UnreadableImageError."""
EVALUATION_SPLITS = ("validation", "val", "test", "train")
"""Which split is taken of one's own data, where the dataset's is not there."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sample: its texts, and what opens its images when they are needed, none or several.

    `frames` are those of a short video, in order; none where the sample has no video. `references` are in the dataset's
    order and may hold empty strings; scoring drops those. `row` is where the sample stands in its source, from 0; None
    where it comes from none.
    """

    id: str
    pictures: tuple[Picture, ...]
    question: str
    choices: tuple[str, ...] = ()
    hint: str = ""
    references: tuple[str, ...] = ()
    row: int | None = None
    frames: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """What a sample shows, opened as RGB: its images, and the frames of its video (none: no video)."""

    images: tuple[Image.Image, ...] = ()
    frames: tuple[Image.Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples with where they came from.

    `source` is `bundled`, `hub` or the folder; `revision` the hub commit, the seed of the bundled rows, or None for a
    folder. `asked` is how many were asked for (None: made by hand); where there are fewer, `remark` says so. `dropped`
    counts rows passed over, by reason; `bad` gives, by id, the reason why a sample's image cannot be read, as far as it
    was seen before the image's turn: those are not among the examples.
    """

    name: str
    source: str
    revision: str | None
    prompt_id: str
    metric: str | None
    max_new_tokens: int
    examples: tuple[Example, ...]
    dropped: dict[str, int] = field(default_factory=dict)
    asked: int | Literal["all"] | None = None
    remark: str | None = None
    bad: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    r"""A user's text in parts, so that a token budget cuts the hint and the question and nothing else.

    The text is `Context: {hint}\n` (when there is a hint), the question, then `fixed`: answer options and instruction.
    """

    hint: str
    question: str
    fixed: str

    def text(self) -> str:
        """Return the whole text as it is asked."""
        context = f"Context: {self.hint}\n" if self.hint else ""
        return f"{context}{self.question}{self.fixed}"


@dataclass(frozen=True, slots=True)
class Spec:
    """A dataset: hub address, columns (with the names accepted for each), conversion, prompt and metric.

    `columns` lists the needed fields; `optional` those that may be missing; `image` and `video` among them hold
    pictures. `to_example(fields, id)` returns an example, its pictures left out, or the reason for which the row is
    dropped. `pictureless` says that a row whose image is missing is still a question.
    """

    name: str
    hub_id: str
    config: str | None
    split: str
    columns: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]]
    to_example: Callable[[Mapping[str, Any], str], Example | str]
    prompt: Callable[[Example], Prompt]
    prompt_id: str
    metric: str | None
    max_new_tokens: int
    pictureless: bool = False
