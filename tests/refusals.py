"""What a request for a model is told that cannot be met."""

from __future__ import annotations

from typing import Any

import pytest

from layerprof.errors import RequestError
from layerprof.models.source import resolve


def refused(name: str, **how: Any) -> RequestError:
    """Return the error that a request ends in."""
    with pytest.raises(RequestError) as caught:
        resolve(name, **how)
    return caught.value
