"""The size of a page of continuous batching, under the name that the installed transformers has for it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from transformers import ContinuousBatchingConfig


def page_size(positions: int) -> dict[str, Any]:
    """Return it as an argument of `ContinuousBatchingConfig`: `page_size`, or `block_size` as of old."""
    names = {field.name for field in fields(ContinuousBatchingConfig)}
    return {"page_size" if "page_size" in names else "block_size": positions}
