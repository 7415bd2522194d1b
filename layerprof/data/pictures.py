"""Any picture -> RGB, and RGB -> square: the same pixels for every model and batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


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
