"""A cell of a table -> what opens its pictures: one image, a list of them, or the frames of a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.data.pictures import held, read_image, trouble
from layerprof.data.rows import Row, as_list

if TYPE_CHECKING:
    from PIL import Image

    from layerprof.data.spec import Picture

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NO_VIDEO_FILE = "a video is given as its frames: a list of images, or a folder of them (ffmpeg -i FILE frames/%04d.png)"
Cell = Callable[[], Any]
"""Reads a cell anew. Raises UnreadableImageError where the source is broken there."""
Inside = tuple[Cell, int | None]
"""What reads a cell that holds pixels, and how many images it lists; None for one image, which is no list."""


def row(
    number: int,
    texts: Mapping[str, Any],
    beside: Mapping[str, str],
    inside: Mapping[str, Inside | None],
    folder: Path | None,
) -> Row:
    """Return a row with what opens its pictures, by field (`image`, `video`).

    `beside` names the columns whose cells are paths, which start at `folder`; `inside` says of the others how the row's
    cell is read, None for an empty one.
    """
    images: tuple[Picture, ...] | None = None
    frames: tuple[Picture, ...] | None = None
    wrong = also = None
    if "image" in beside:
        images, wrong = _images(texts.get(beside["image"]), folder)
    if "video" in beside:
        frames, also = _frames(texts.get(beside["video"]), folder)
    if (one := inside.get("image")) is not None:
        images = _within(*one, folder)
    if (one := inside.get("video")) is not None:
        frames, also = (None, NO_VIDEO_FILE) if one[1] is None else (_within(*one, folder), None)
    images = () if images is None and frames is not None else images
    return Row(number, texts, images, frames or (), wrong or also)


def listed(cell: Any) -> list[Any] | None:
    """Return the images that a cell lists, one where it holds no list; None for an empty cell, [] for an empty list.

    A list may be written as text (JSON), as tables of text have it. A list in which nothing is held is an empty cell.
    """
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        parsed = as_list(cell)
        cell = cell if parsed == [cell] else parsed
    if not isinstance(cell, (list, tuple)):
        return None if held(cell) is None else [cell]
    return None if cell and all(held(one) is None for one in cell) else list(cell)


# --- cells that name files --------------------------------------------------------------------------------------


def _images(cell: Any, folder: Path | None) -> tuple[tuple[Picture, ...] | None, str | None]:
    """Return what opens a cell's images (None: an empty cell), and why one cannot be read as far as its path tells."""
    found = listed(cell)
    if found is None:
        return None, None
    return _opening(found, folder), _trouble(found, folder, "image")


def _frames(cell: Any, folder: Path | None) -> tuple[tuple[Picture, ...] | None, str | None]:
    """Return what opens the frames of a cell's video (None: none), and why one cannot be read as its path tells.

    The cell is a list of frames, or the path of a folder that holds them, in the order of their names.
    """
    found = listed(cell)
    if found is None:
        return None, None
    if isinstance(cell, (list, tuple)) or found != [cell]:
        return _opening(found, folder), _trouble(found, folder, "frame")
    named = held(cell)
    if not isinstance(named, (str, Path)):
        return None, NO_VIDEO_FILE
    wrong = trouble(named, folder)
    if wrong is None:
        return None, f"{named}: {NO_VIDEO_FILE}"
    if not wrong.endswith(": is a folder"):
        return None, wrong
    beside = (folder or Path()) / Path(named).expanduser()
    files = sorted(file for file in beside.iterdir() if file.suffix.lower() in FRAME_SUFFIXES)
    return _opening(files, folder), None if files else f"{named}: holds no images"


def _opening(found: Sequence[Any], folder: Path | None) -> tuple[Picture, ...]:
    return tuple(partial(read_image, one, folder) for one in found)


def _trouble(found: Sequence[Any], folder: Path | None, kind: str) -> str | None:
    """Return what is wrong with the first that is, and which it is where there are several."""
    for which, one in enumerate(found, 1):
        wrong = trouble(one, folder) or ("is missing" if held(one) is None else None)
        if wrong is not None:
            return wrong if len(found) == 1 else f"{kind} {which}: {wrong}"
    return None


# --- cells that hold pixels -------------------------------------------------------------------------------------


def _within(cell: Cell, count: int | None, folder: Path | None) -> tuple[Picture, ...]:
    """Return what opens the pictures of a cell that is read when its turn comes; it holds `count`, None for no list."""
    if count is None:
        return (partial(_only, cell, folder),)
    return tuple(partial(_one_of, cell, which, folder) for which in range(count))


def _only(cell: Cell, folder: Path | None) -> Image.Image:
    return read_image(cell(), folder)


def _one_of(cell: Cell, which: int, folder: Path | None) -> Image.Image:
    found = cell()
    return read_image(found[which] if which < len(found) else None, folder)
