"""Pictures: any image becomes RGB, then a square, with the pixels one would expect."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from small_models import picture

from layerprof.data import pictures

MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "CMYK", "1", "I", "I;16", "F", "YCbCr", "HSV")


@pytest.mark.parametrize("mode", MODES)
def test_any_mode_becomes_rgb_of_the_asked_side(mode: str) -> None:
    """Whatever a camera or a screenshot tool writes."""
    made = pictures.square(Image.new(mode, (7, 5)), 56)
    assert (made.mode, made.size) == ("RGB", (56, 56))


def test_transparency_lies_on_white() -> None:
    """Not on black, where dark text would vanish."""
    assert pictures.rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled() -> None:
    """Half of 65,535 is half of 255, not white."""
    grey = Image.fromarray(torch.full((2, 2), 32896, dtype=torch.int32).numpy().astype("uint16"))
    value = pictures.rgb(grey).getpixel((0, 0))
    assert isinstance(value, tuple)
    assert value == (128, 128, 128)


def test_pictures_are_turned_as_their_exif_says() -> None:
    """A photograph taken sideways is read upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees
    stream = io.BytesIO()
    picture(64, 48).save(stream, "PNG", exif=exif)
    assert pictures.rgb(Image.open(io.BytesIO(stream.getvalue()))).size == (48, 64)


def test_square_is_bicubic_by_either_way() -> None:
    """The Qwen way (qwen-vl-utils) gives Pillow's bicubic pixels."""
    image = picture(300, 200)
    expected = image.resize((112, 112), Image.Resampling.BICUBIC)
    assert pictures.square(image, 112, patch=14).tobytes() == expected.tobytes()
