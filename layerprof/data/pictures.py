"""A cell -> a picture -> RGB -> square: the same pixels for every model and batch size."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.data.rows import is_empty

if TYPE_CHECKING:
    from PIL import Image


class UnreadableImageError(Exception):
    """An image that is missing or cannot be decoded; the message says which and why."""


def read_image(value: Any, folder: Path | None) -> Image.Image | None:
    """Return a cell's image, decoded once as a proof and held in its compressed form; None for an empty cell.

    The cell may be an image, the file's bytes, `{"bytes", "path"}` as `datasets` stores them, a path (relative ones
    start at `folder`), or a list of one of these. Raises UnreadableImageError.
    """
    from PIL import Image

    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if is_empty(value):
        return None
    if isinstance(value, Image.Image):
        return value
    try:
        return _decoded(_bytes_of(value, folder))
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{value}: {error}" if isinstance(value, (str, Path)) else str(error)) from None


def _bytes_of(value: Any, folder: Path | None) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, (str, Path)):
        raise UnreadableImageError(f"a {type(value).__name__} is not an image")
    if "://" in str(value):
        raise UnreadableImageError("addresses are not fetched; download it")
    try:
        path = Path(value).expanduser()
        return (path if path.is_absolute() or folder is None else folder / path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from None
    except (ValueError, RuntimeError) as error:  # a NUL in the name; ~ of somebody who has no home here
        raise UnreadableImageError(str(error)) from None


def _decoded(data: bytes) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as trial:
            trial.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        kind = "empty file" if not data else str(error).replace("<_io.BytesIO object at", "bytes").split(" 0x")[0]
        raise UnreadableImageError(f"{kind} ({len(data)} bytes)") from None
    return Image.open(io.BytesIO(data))


def rgb(image: Image.Image) -> Image.Image:
    """Return a picture as RGB: turned as its EXIF says, transparency on white, 16-bit grey scaled to 8 bits."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGB", layer.size, (255, 255, 255))
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return image.convert("RGB")


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
    from qwen_vl_utils import vision_process  # type: ignore[import-untyped]  # ships no types

    asked = {"image": picture, "resized_height": side, "resized_width": side}
    resized: Image.Image = vision_process.fetch_image(asked, image_patch_size=patch)
    return resized
