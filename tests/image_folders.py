"""A folder of samples of one's own: plain pictures, and a metadata.jsonl with a TextVQA row for each."""

from __future__ import annotations

import io
import json
from pathlib import Path
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


def image_folder(folder: Path) -> Path:
    """Write five pictures and their metadata.jsonl."""
    rows = [text_row(number) for number in range(5)]
    for number in range(5):
        (folder / f"{number}.png").write_bytes(png((50 * number, 0, 0)))
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder
