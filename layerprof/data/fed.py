"""The processor's output -> what each sample was fed: sizes of images and videos as they were handed on, their tokens.

Families tell the size in ways of their own. Grids of patches (Qwen and its like) give it exactly, as do `image_sizes`
(Pixtral; LLaVA-NeXT and OneVision, whose size is the picture's before it is cut into tiles), masks of padded pixels
(Idefics2) and pixels of one size (LLaVA, Gemma 3). Of what tells nothing, tiles say, the size is the picture's as the
processor was given it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from layerprof.records import Fed

if TYPE_CHECKING:
    from layerprof.data.spec import Shown
    from layerprof.models.subject import Subject

Size = tuple[int, int]
"""Width and height, in pixels."""


def fed(subject: Subject, made: Any, shown: Sequence[Shown]) -> tuple[tuple[Fed, ...], ...]:
    """Return what each row was fed, images before the video; `made` is the processor's output, before any copy.

    `tokens` is what one of them became in the prompt: None where the family's prompts hold no tokens of images, and
    where several in a row share tokens in a way that is not told.
    """
    images = _images(subject, made, shown)
    videos = _videos(subject, made, shown)
    runs = _runs(subject, made)
    rows = []
    for place, one in enumerate(shown):
        row = [next(images) for _ in one.images] + [next(videos) for _ in one.frames[:1]]
        rows.append(_shared(row, runs[place] if runs is not None else []))
    return tuple(rows)


def tokens_by_row(subject: Subject, made: Any) -> list[int] | None:
    """Return how many tokens of each prompt stand for images and videos; None where the family does not tell."""
    runs = _runs(subject, made)
    return None if runs is None else [sum(row) for row in runs]


def _runs(subject: Subject, made: Any) -> list[list[int]] | None:
    """Return how many tokens of images and videos stand in a row, for each time they do, for each prompt."""
    known = {token for token in (subject.image_token_id, subject.video_token_id) if token is not None}
    if not known:
        return None
    marked = ([token in known for token in row] for row in made["input_ids"].tolist())
    return [[sum(run) for held, run in groupby(row) if held] for row in marked]


def _shared(row: list[Fed], runs: list[int]) -> tuple[Fed, ...]:
    """Give each image its share of the row's tokens, where it can be told: by grids, or as many runs as images."""
    tokens = sum(runs)
    told = [one.tokens for one in row if one.tokens is not None]
    if len(told) == len(row) and sum(told) == tokens:
        return tuple(row)
    shares: list[int | None] = [None] * len(row)
    if len(row) == 1 and tokens:
        shares = [tokens]
    elif len(runs) == len(row):
        shares = [*runs]
    elif row and tokens % len(row) == 0 and len({(one.width, one.height, one.frames) for one in row}) == 1:
        shares = [tokens // len(row) or None] * len(row)
    return tuple(one.model_copy(update={"tokens": share}) for one, share in zip(row, shares, strict=True))


def _images(subject: Subject, made: Any, shown: Sequence[Shown]) -> Any:
    """Yield the images of all rows, one after the other."""
    given = [picture.size for one in shown for picture in one.images]
    grids = _listed(made, "image_grid_thw", len(given))
    if grids is not None:
        return (_of_grid(subject.processor.image_processor, grid, video=False) for grid in grids)
    sizes = _told(made, len(given), rows=len(shown)) or given
    return (Fed(width=width, height=height) for width, height in sizes)


def _videos(subject: Subject, made: Any, shown: Sequence[Shown]) -> Any:
    """Yield the videos of all rows, one after the other."""
    given = [one.frames for one in shown if one.frames]
    grids = _listed(made, "video_grid_thw", len(given))
    if grids is not None:
        return (_of_grid(subject.processor.video_processor, grid, video=True) for grid in grids)
    pixels = made.get("pixel_values_videos")
    whole = getattr(pixels, "ndim", 0) == 5 and pixels.shape[0] == len(given)  # (videos, frames, 3, height, width)
    frames = [(int(pixels.shape[-1]), int(pixels.shape[-2]), int(pixels.shape[1]))] * len(given) if whole else None
    told = frames or [(*one[0].size, len(one)) for one in given]
    return (Fed(width=width, height=height, frames=count) for width, height, count in told)


def _of_grid(cutter: Any, grid: Sequence[int], *, video: bool) -> Fed:
    """Tell of a grid of patches: (steps in time, rows, columns); merge x merge patches are a token."""
    steps, down, across = grid
    patch, merge = int(cutter.patch_size), int(cutter.merge_size)
    return Fed(
        width=across * patch,
        height=down * patch,
        frames=steps * int(cutter.temporal_patch_size) if video else None,
        tokens=steps * down * across // merge**2,
    )


def _listed(made: Any, name: str, count: int) -> list[list[int]] | None:
    value = made.get(name)
    listed = value.tolist() if hasattr(value, "tolist") else value
    return listed if isinstance(listed, list) and len(listed) == count and count else None


def _told(made: Any, count: int, rows: int) -> list[Size] | None:
    """Return the images' sizes as the processor's output tells them; None where it does not."""
    sizes = _listed(made, "image_sizes", count)
    if sizes is not None:
        return [(int(width), int(height)) for height, width in sizes]
    pixels = made.get("pixel_values")
    if isinstance(pixels, list) and len(pixels) == count and all(getattr(one, "ndim", 0) >= 3 for one in pixels):
        return [(int(one.shape[-1]), int(one.shape[-2])) for one in pixels]
    shape = tuple(getattr(pixels, "shape", ()))
    mask = made.get("pixel_attention_mask")
    if len(shape) == 5 and shape[:2] == (rows, 1) and count == rows:  # (rows, images, 3, height, width)
        real = [one[0] for one in mask] if getattr(mask, "ndim", 0) == 4 else None
        return [_unpadded(one) for one in real] if real else [(shape[-1], shape[-2])] * count
    return [(shape[-1], shape[-2])] * count if len(shape) == 4 and shape[0] == count else None


def _unpadded(mask: Any) -> Size:
    """Return the size of the real pixels of a (height, width) mask."""
    return int(mask.any(0).sum()), int(mask.any(1).sum())
