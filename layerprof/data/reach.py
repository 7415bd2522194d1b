"""What a model can be asked about: several images, a video, no picture at all; tried on blank ones before any walk.

Processors refuse what their family does not take in ways of their own, and some take it without a word and make a
prompt that the model cannot use. So each kind of sample that a run holds is processed once beforehand, alone and beside
the others, and its tokens are counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerprof.data.chat import chat
from layerprof.data.features import features
from layerprof.data.fed import tokens_by_row
from layerprof.data.spec import Shown
from layerprof.errors import RequestError, RunFailedError

if TYPE_CHECKING:
    from layerprof.data.sizes import Sizing
    from layerprof.data.spec import Example
    from layerprof.models.subject import Subject

BLANK = (112, 84)
"""Width and height of a picture to try with."""
REMEDY = (
    "Leave such samples out of the source, or prepare the inputs yourself and use layerprof.LayerProfiler around your "
    "own generate()."
)
Kind = tuple[int, int]
"""How many images a sample has, and how many frames its video."""
ONE: Kind = (1, 0)


def check(subject: Subject, examples: Sequence[Example], mark: str, sizing: Sizing, together: bool) -> None:
    """Raise RequestError naming the first sample that the model cannot be asked about.

    `together` says that samples of different kinds may be in one batch. Samples of one image are what every family
    takes; a model without a processor for images is asked without any.
    """
    if not subject.takes_images:
        return
    first: dict[Kind, Example] = {}
    for example in examples:
        first.setdefault((len(example.pictures), len(example.frames)), example)
    kinds = [kind for kind in _telling(list(first)) if kind != ONE]
    if not kinds:
        return
    of_one = _tokens(subject, [ONE], mark, sizing)
    alone = {kind: _alone(subject, kind, first[kind], mark, sizing, of_one[0]) for kind in kinds}
    if ONE in first:
        alone = {ONE: of_one[0], **alone}
    if together and len(alone) > 1:
        _beside(subject, alone, first, mark, sizing)


def _telling(kinds: list[Kind]) -> list[Kind]:
    """Return the kinds to try: nothing, the most images, the most and fewest frames alone and beside images."""
    groups = (
        [kind for kind in kinds if kind == (0, 0)],
        [kind for kind in kinds if kind[0] and not kind[1]],
        [kind for kind in kinds if kind[1] and not kind[0]],
        [kind for kind in kinds if kind[0] and kind[1]],
    )
    most, fewest = [max(group) for group in groups if group], [min(group) for group in groups[2:] if group]
    return list(dict.fromkeys([*most, *fewest]))


def _alone(subject: Subject, kind: Kind, example: Example, mark: str, sizing: Sizing, of_one: int | None) -> int | None:
    """Return the tokens of a sample of this kind. Raises RequestError where it cannot be asked."""
    images, frames = kind
    if not images and not frames and _needs_pixels(subject):
        raise _not_taken(subject, kind, example, "its generate() wants pixel_values")
    if frames and getattr(subject.processor, "video_processor", None) is None:
        raise _not_taken(subject, kind, example, "its processor has no part for videos")
    if images > 1 and of_one is None:
        raise _not_taken(subject, kind, example, "its prompts hold no tokens that would tell two images apart")
    try:
        (tokens,) = _tokens(subject, [kind], mark, sizing)
    except (RequestError, RunFailedError) as error:
        raise _not_taken(subject, kind, example, _cause(error)) from error
    if images > 1 and not frames and tokens == of_one:
        raise _not_taken(subject, kind, example, f"its prompt holds {tokens} image tokens, as many as for one")
    if (images or frames) and tokens == 0 and of_one:
        raise _not_taken(subject, kind, example, "its prompt holds no tokens of it")
    return tokens


def _beside(
    subject: Subject, alone: dict[Kind, int | None], first: dict[Kind, Example], mark: str, sizing: Sizing
) -> None:
    """Raise RequestError unless the kinds have the same tokens side by side as alone."""
    kinds = list(alone)
    other = next(kind for kind in kinds if kind != ONE)
    try:
        found = _tokens(subject, kinds, mark, sizing)
    except (RequestError, RunFailedError) as error:
        cause = _cause(error)
    else:
        if found == list(alone.values()):
            return
        cause = f"it makes {found} image tokens of them, {list(alone.values())} were due"
    raise RequestError(
        f"The model's processor cannot take sample {first[other].id}, {_what(other)}, in a batch with samples of "
        f"another kind ({cause}).",
        "Give --batch-size 1.",
    )


def _tokens(subject: Subject, kinds: list[Kind], mark: str, sizing: Sizing) -> list[int | None]:
    """Process one blank sample of each kind together, and count the tokens that stand for pictures in each."""
    from PIL import Image

    blank = Image.new("RGB", BLANK)
    shown = [Shown((blank,) * images, (blank,) * frames) for images, frames in kinds]
    texts = [chat(subject, "a", images, frames > 0, mark) for images, frames in kinds]
    counted = tokens_by_row(subject, features(subject, texts, shown, sizing))
    return [None] * len(kinds) if counted is None else list(counted)


def _needs_pixels(subject: Subject) -> bool:
    """Tell whether the model's `generate` has no default for pixels (BLIP's, say)."""
    pixels = inspect.signature(subject.model.generate).parameters.get("pixel_values")
    return pixels is not None and pixels.default is inspect.Parameter.empty


def _cause(error: RequestError | RunFailedError) -> str:
    found = error.__cause__
    text = f"{type(found).__name__}: {found}" if found is not None else str(error.problem)
    return " ".join(text.split())[:300]


def _not_taken(subject: Subject, kind: Kind, example: Example, cause: str) -> RequestError:
    model = type(subject.model).__name__
    return RequestError(f"Sample {example.id} has {_what(kind)}, which {model} cannot be asked ({cause}).", REMEDY)


def _what(kind: Kind) -> str:
    images, frames = kind
    parts = [f"{images} image{'s' if images > 1 else ''}"] if images else []
    parts += [f"a video of {frames} frame{'s' if frames > 1 else ''}"] if frames else []
    return " and ".join(parts) or "no image"
