"""A cell -> a picture -> RGB -> square: the same pixels for every model and batch size."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.data.rows import is_empty

if TYPE_CHECKING:
    from PIL import Image

    from layerprof.data.spec import Picture

ORIENTATION = 0x0112
"""EXIF tag of how the camera was held."""
LONGEST_NAME = 200
LONGEST_PATH = 4095
"""Bytes that Linux takes for one; images as base64 text are longer."""


class UnreadableImageError(Exception):
    """An image that is missing or cannot be decoded; the message says which and why."""


def held(value: Any) -> Any:
    """Return what is held where an image should be: an image, a file's bytes or a path; None for nothing.

    It may be one of these, `{"bytes", "path"}` as `datasets` stores them, or a list of one.
    """
    if isinstance(value, (list, tuple)):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    return None if is_empty(value) else value


def read_image(value: Any, folder: Path | None) -> Image.Image:
    """Return a cell's image, decoded; relative paths start at `folder`. Raises UnreadableImageError."""
    from PIL import Image

    value = held(value)
    if value is None:
        raise UnreadableImageError("no image")
    if isinstance(value, Image.Image):
        return value
    try:
        return _decoded(_bytes_of(value, folder))
    except UnreadableImageError as error:
        raise UnreadableImageError(
            f"{_named(value)}: {error}" if isinstance(value, (str, Path)) else str(error)
        ) from None


def trouble(value: Any, folder: Path | None) -> str | None:
    """Return why a cell's image cannot be read, as far as its path tells; None where nothing speaks against it."""
    value = held(value)
    if not isinstance(value, (str, Path)):
        return None
    try:
        with _reported():
            found = _path_of(value, folder).stat()
    except UnreadableImageError as error:
        return f"{_named(value)}: {error}"
    if stat.S_ISDIR(found.st_mode):
        return f"{_named(value)}: is a folder"
    return None if found.st_size else f"{_named(value)}: empty file (0 bytes)"


def opened(picture: Picture) -> Image.Image:
    """Open a sample's picture as RGB. Raises UnreadableImageError."""
    image = picture()
    with _decoding():
        return rgb(image)


def _bytes_of(value: Any, folder: Path | None) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, (str, Path)):
        raise UnreadableImageError(f"a cell of type {type(value).__name__} is not an image")
    with _reported():
        return _path_of(value, folder).read_bytes()


def _named(value: str | Path) -> str:
    """Return a path as it is named in a message: a cell may hold a whole file as text."""
    text = str(value)
    return text if len(text) <= LONGEST_NAME else f"{text[:24]}... ({len(text)} characters)"


def _path_of(value: str | Path, folder: Path | None) -> Path:
    if len(str(value)) > LONGEST_PATH or str(value).startswith("data:"):
        raise UnreadableImageError("this is no path, and text is not decoded; store the file, or its bytes in parquet")
    if "://" in str(value):
        raise UnreadableImageError("addresses are not fetched; download it")
    path = Path(value).expanduser()
    return path if path.is_absolute() or folder is None else folder / path


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from None
    except (ValueError, RuntimeError) as error:  # a NUL in the name; ~ of somebody who has no home here
        raise UnreadableImageError(str(error)) from None


@contextmanager
def _decoding(size: int | None = None) -> Iterator[None]:
    """Tell what goes wrong in here as an image that cannot be read; each format's decoder has its own error classes."""
    try:
        yield
    except Exception as error:
        kind = str(error).replace("<_io.BytesIO object at", "bytes").split(" 0x")[0] or type(error).__name__
        kind = "empty file" if size == 0 else kind
        raise UnreadableImageError(kind if size is None else f"{kind} ({size} bytes)") from None


def _decoded(data: bytes) -> Image.Image:
    from PIL import Image

    with _decoding(len(data)):
        image = Image.open(io.BytesIO(data))
        image.load()
        return image


def rgb(image: Image.Image) -> Image.Image:
    """Return a picture as RGB: turned as its EXIF says, transparency on white, 16-bit grey scaled to 8 bits."""
    from PIL import Image, ImageOps

    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGB", layer.size, (255, 255, 255))
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """Scale grey of more than 8 bits to 8: integers as 16-bit, fractions by their own maximum."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = 65535.0 if image.mode.startswith("I") else max(float(values.max(initial=0.0)), 1e-12)
    grey = np.clip(values / top * 255, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def square(image: Image.Image, side: int, *, patch: int | None = None) -> Image.Image:
    """Return a picture stretched to side x side pixels, bicubic.

    With `patch` (Qwen's pixels a patch) the resize is that of qwen-vl-utils, as the models' authors do it.
    """
    from PIL import Image

    picture = rgb(image)
    if patch is None:
        return picture.resize((side, side), Image.Resampling.BICUBIC)
    return _fetched({"image": picture, "resized_height": side, "resized_width": side}, patch)


def resized_by_qwen(image: Image.Image, patch: int, bounds: tuple[int, int]) -> Image.Image:
    """Return a picture in the size that Qwen's own rule gives it, within fewest and most pixels, by qwen-vl-utils."""
    return _fetched({"image": rgb(image), "min_pixels": bounds[0], "max_pixels": bounds[1]}, patch)


def _fetched(asked: dict[str, Any], patch: int) -> Image.Image:
    from qwen_vl_utils import vision_process  # type: ignore[import-untyped]  # ships no types

    resized: Image.Image = vision_process.fetch_image(asked, image_patch_size=patch)
    return resized
