"""Errors in words."""

from __future__ import annotations

import pytest

from layerprof.errors import described


class UntoldError(Exception):
    """An error of a user's own that cannot be told."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such size"), "ValueError: no such size"),
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError(), "AssertionError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (UntoldError(), "UntoldError"),
    ],
)
def test_an_error_is_told_by_its_class_and_message(error: BaseException, told: str) -> None:
    """By its class alone where it has no message; no colon is left behind."""
    assert described(error) == told
