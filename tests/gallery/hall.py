"""All exhibits, from the files of their kinds."""

from __future__ import annotations

import pytest

from gallery import (  # noqa: F401  # importing a file puts its exhibits on show
    adapters,
    compiled,
    copied,
    dtypes,
    failing,
    families,
    functional,
    hooked,
    layouts,
    lazy,
    modes,
    nesting,
    outputs,
    randomness,
    shared,
    stateful,
    training,
)
from gallery.exhibit import EXHIBITS

NAMES = sorted(EXHIBITS)


def marked(known: dict[tuple[str, str], str], *ways: str) -> list[object]:
    """Return (exhibit, mode) parameters, with those that are known to fail marked so."""

    def why(name: str, mode: str) -> str | None:
        return known.get((name, mode), known.get((name, "*")))

    return [
        pytest.param(
            name,
            mode,
            id=f"{name}-{mode}",
            marks=[pytest.mark.xfail(strict=True, reason=reason)] if (reason := why(name, mode)) else [],
        )
        for name in NAMES
        for mode in ways
    ]
