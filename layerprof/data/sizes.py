"""Which size pictures are given: square, or their own by the processor's rule; checked against the rule itself.

Images of the Qwen family are made square, `image_size` x `image_size` (a picture that is not square is stretched),
which gives exactly (image_size / cell)^2 image tokens, or with `native` resized by the family's own rule. Other
families' processors resize by rules of their own: their pictures are made square first where the processor's output
depends on the size, and left alone where it does not, or where they are to keep their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprof.data.chat import refused
from layerprof.data.pictures import resized_by_qwen, square
from layerprof.data.spec import Shown
from layerprof.errors import RequestError, RunFailedError
from layerprof.settings import ImageSize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from layerprof.models.subject import Subject

MOST_RATIO = 200
"""Longer over shorter side that Qwen's rule takes."""
Bounds = tuple[int, int]
"""Fewest and most pixels of a picture."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """What is done to pictures before the processor gets them.

    `side` is that of the square they are stretched to; None leaves them to the processor's rule. `fewest` and `most`
    are the bounds on pixels that were asked for.
    """

    side: int | None = None
    fewest: int | None = None
    most: int | None = None


def sizing_of(subject: Subject, image_size: ImageSize, fewest: int | None = None, most: int | None = None) -> Sizing:
    """Return what is done to pictures. Raises RequestError for bounds on pixels that the processor has no setting for.

    A square has no side where the processor's output does not depend on it.
    """
    if image_size == "native":
        if (fewest or most) and subject.takes_images:
            _check_bounds(subject, fewest, most)
        return Sizing(None, fewest, most)
    if not subject.takes_images or subject.is_qwen_vl:
        return Sizing(image_size)
    one, other = (_image_shapes(subject, side) for side in (image_size, 3 * image_size))
    return Sizing(None if one == other else image_size)


def sized(subject: Subject, shown: Shown, sizing: Sizing) -> Shown:
    """Return a sample's pictures as the processor is given them; of shapes that `unfit` finds nothing against.

    All frames of a video have one size: that of the first, or what the rule makes of it.
    """
    if sizing.side is not None:
        side, patch = sizing.side, _patch(subject) if subject.is_qwen_vl else None
        return Shown(*(tuple(square(one, side, patch=patch) for one in part) for part in (shown.images, shown.frames)))
    if not subject.is_qwen_vl:
        return Shown(shown.images, tuple(_resized(one, shown.frames[0].size) for one in shown.frames))
    patch, bounds = _patch(subject), image_bounds(subject, sizing)
    images = tuple(resized_by_qwen(one, patch, bounds) for one in shown.images)
    frames = shown.frames
    if frames:
        size = frame_size(subject, frames, sizing)
        frames = tuple(_resized(one, size) for one in frames)
    return Shown(images, frames)


def settings_of(subject: Subject, sizing: Sizing) -> dict[str, Any]:
    """Return what the processor is called with, so that it keeps to the sizes."""
    if subject.is_qwen_vl:
        return {"do_resize": False}
    if sizing.fewest is None and sizing.most is None:
        return {}
    fewest, most = image_bounds(subject, sizing)
    return {"images_kwargs": {"size": {"shortest_edge": fewest, "longest_edge": most}}}


# --- Qwen's rule ------------------------------------------------------------------------------------------------


def rule(width: int, height: int, cell: int, bounds: Bounds, frames: int | None = None) -> tuple[int, int]:
    """Return the width and height that Qwen's rule gives a picture.

    Both are the nearest multiples of `cell`, one at least; where the product leaves the bounds, both sides are scaled
    by the root of bound over pixels first, and rounded down (up) to stay within (`smart_resize` of qwen-vl-utils).
    With `frames` the bounds are those of a whole video, whose frames count in pairs, and a frame smaller than a cell
    is scaled up to one first (`smart_resize` of Qwen3-VL's video processor).
    """
    fewest, most = bounds
    count, paired = (1, 1) if frames is None else (frames, max(2, round(frames / 2) * 2))
    if frames is not None and min(width, height) < cell:
        width, height = (int(side * cell / min(width, height)) for side in (width, height))
    sides = [max(cell, round(side / cell) * cell) for side in (width, height)]
    pixels = paired * math.prod(sides)
    if pixels > most:
        scale = math.sqrt(count * width * height / most)
        sides = [math.floor(side / scale / cell) * cell for side in (width, height)]
    elif pixels < fewest:
        scale = math.sqrt(fewest / (count * width * height))
        sides = [math.ceil(side * scale / cell) * cell for side in (width, height)]
    return (sides[0], sides[1]) if frames is None else (max(cell, sides[0]), max(cell, sides[1]))


def image_bounds(subject: Subject, sizing: Sizing) -> Bounds:
    """Return the bounds that hold for images: those asked for, else the checkpoint's own."""
    fewest, most = _bounds_of(subject.processor.image_processor)
    return sizing.fewest or min(fewest, sizing.most or fewest), sizing.most or max(most, sizing.fewest or most)


def frame_size(subject: Subject, frames: Sequence[Image.Image], sizing: Sizing) -> tuple[int, int]:
    """Return the width and height of a video's frames by the rule of its processor; the first frame's shape counts.

    Bounds that were asked for are those of each frame. Else they are the checkpoint's: of a frame up to Qwen2.5-VL, of
    the whole video from Qwen3-VL on.
    """
    size, cell = frames[0].size, subject.cell_px or 1
    if sizing.fewest is not None or sizing.most is not None:
        return rule(*size, cell, image_bounds(subject, sizing))
    whole = subject.model.config.model_type.startswith("qwen3")
    return rule(*size, cell, _bounds_of(subject.processor.video_processor), len(frames) if whole else None)


def unfit(subject: Subject, shown: Shown, sizing: Sizing) -> str | None:
    """Return why Qwen's rule has no size for one of these pictures; None where it has, and for other families."""
    if sizing.side is not None or not subject.is_qwen_vl:
        return None
    for picture in (*shown.images, *shown.frames[:1]):
        width, height = picture.size
        if max(width, height) > MOST_RATIO * min(width, height):
            return f"{width} x {height} pixels are more than {MOST_RATIO} to 1, which the model's rule of sizes refuses"
        if 0 in rule(width, height, subject.cell_px or 1, image_bounds(subject, sizing)):
            return f"{width} x {height} pixels have no image token a side left within --max-pixels {sizing.most}"
    return None


def check_grids(subject: Subject, made: Any, given: Sequence[Shown], due: Sequence[Shown], sizing: Sizing) -> None:
    """Hold the Qwen family's processor to the grid of patches that is due: some versions resize although told not to.

    `given` are the pictures as they came, `due` as the processor got them. Of native ones the size is worked out here
    from the rule. Raises RunFailedError for another grid.
    """
    patch = _patch(subject)
    images: list[list[int]] = []
    videos: list[list[int]] = []
    for came, got in zip(given, due, strict=True):
        for picture in came.images:
            images.append(_grid(_size_due(subject, picture, sizing), patch))
        if came.frames:
            size = (sizing.side, sizing.side) if sizing.side else frame_size(subject, came.frames, sizing)
            steps = int(subject.processor.video_processor.temporal_patch_size)
            videos.append(_grid(size, patch, math.ceil(len(got.frames) / steps)))
    for name, grids in (("image_grid_thw", images), ("video_grid_thw", videos)):
        found = made[name].tolist() if name in made else []
        if found != grids:
            wrong = next((place for place, one in enumerate(grids) if found[place : place + 1] != [one]), 0)
            what = f"of {sizing.side} px images" if sizing.side else "of pictures of native size"
            raise RunFailedError(
                f"The image processor made grids {found[wrong : wrong + 3]} {what}; {grids[wrong]} was due.",
                "Another version of transformers may do; say which one this is when reporting it.",
            )


def check_most(subject: Subject, made: Any, sizing: Sizing) -> None:
    """Hold other families' processors to the most pixels that were asked for. Raises RunFailedError."""
    if sizing.most is None or "image_grid_thw" not in made:
        return
    pixels = max(math.prod(grid) for grid in made["image_grid_thw"].tolist()) * _patch(subject) ** 2
    if pixels > sizing.most:
        raise RunFailedError(
            f"The image processor made a picture of {pixels} pixels, and --max-pixels is {sizing.most}.",
            "Leave --max-pixels out, or give --image-size in pixels.",
        )


def _size_due(subject: Subject, picture: Image.Image, sizing: Sizing) -> tuple[int, int]:
    if sizing.side:
        return sizing.side, sizing.side
    return rule(*picture.size, subject.cell_px or 1, image_bounds(subject, sizing))


def _grid(size: tuple[int, int], patch: int, steps: int = 1) -> list[int]:
    return [steps, size[1] // patch, size[0] // patch]


# --- what processors say ----------------------------------------------------------------------------------------


def _patch(subject: Subject) -> int:
    return int(subject.processor.image_processor.patch_size)


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    from PIL import Image

    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


def _bounds_of(processor: Any) -> Bounds:
    """Return the fewest and most pixels of a picture, as a processor of Qwen's kind tells them."""
    size = processor.size
    return int(size["shortest_edge"]), int(size["longest_edge"])


def _check_bounds(subject: Subject, fewest: int | None, most: int | None) -> None:
    """Raise RequestError unless the processor bounds pictures by their pixels, and these bounds leave room."""
    images = subject.processor.image_processor
    option = "--min-pixels" if fewest else "--max-pixels"
    try:
        bounded = bool(_bounds_of(images)) and "image_grid_thw" in images.model_input_names
    except (AttributeError, KeyError, TypeError):  # edges that are not there, or are none of pixels
        bounded = False
    if not bounded:
        raise RequestError(
            f"{option} bounds the pixels of a picture; this model's processor ({type(images).__name__}) has no such "
            "setting.",
            f"Leave {option} out; the processor resizes by its own rule, or give --image-size in pixels.",
        )
    cell = subject.cell_px
    if cell is not None and most is not None and most < cell**2:
        raise RequestError(
            f"--max-pixels {most} is less than one image token, which is {cell} x {cell}.",
            f"Give --max-pixels {cell**2} or more.",
        )


def _image_shapes(subject: Subject, side: int) -> list[tuple[int, ...]]:
    """Return the shapes of all that the image processor makes of a blank square picture, whatever their names."""
    from PIL import Image

    try:
        made = subject.processor.image_processor(Image.new("RGB", (side, side)), return_tensors="pt")
    except Exception as error:  # as with whole prompts
        raise refused("image processor", error) from error
    parts = [made] if hasattr(made, "shape") else made.values()  # Idefics gives the pixels alone
    return [tuple(value.shape) for value in parts if hasattr(value, "shape")]
