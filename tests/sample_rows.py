"""Pictures and rows of datasets, made by hand."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

RED = (250, 10, 10)


def png(color: tuple[int, int, int] = RED, size: tuple[int, int] = (8, 6)) -> bytes:
    """Bytes of a plain picture."""
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    return stream.getvalue()


def text_row(number: int, **more: Any) -> dict[str, Any]:
    """Return a TextVQA row whose image is a file."""
    return {"file_name": f"{number}.png", "question": f"what is {number}?", "answers": [str(number)] * 10} | more
