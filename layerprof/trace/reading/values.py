"""JSON values one by one, out of text that may break off or be no JSON at all. Pure, no torch.

Beyond JSON it takes what writers of traces leave in it: NaN, Infinity, control signs in strings, a comma behind the
last item. Half a surrogate pair becomes the sign for what cannot be shown, and an integer of more than 64 bits a
float, so that what is read can be written again.
"""

from __future__ import annotations

import json
import re
from typing import Any

Event = dict[str, Any]

BLANK = " \t\r\n\ufeff"
"""Signs between values. A byte order mark stands where one file was put behind another."""

_CUT_SIGNS = frozenset(
    word[:length]
    for word in ("true", "false", "null", "NaN", "-Infinity", "Infinity", ".", "e+", "e-", "E+", "E-")
    for length in range(len(word))
) | {"."}
"""What may stand at the place of an error that comes of the text's end alone: the beginning of a word or a number."""
_COMMA_TOO_MANY = re.compile(r",\s*[}\]]")
_NEAR = 64
_MENDED = (1 << 10, 8 << 10, 64 << 10)
"""Signs of a value in which commas too many are mended: one size after the other, since most values are short."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NESTED = 500
"""Signs that a value nested too deep surely takes."""
_BITS = 63
_MOST_DIGITS = 4000


class IncompleteError(Exception):
    """The value may go on behind the text, which is good until `at`."""

    def __init__(self, at: int) -> None:
        self.at = at


class BrokenError(Exception):
    """The text is no value whatever follows, because of what stands at `at`: too deep a nest if `nested`."""

    def __init__(self, at: int, *, nested: bool = False) -> None:
        self.at = at
        self.nested = nested


def _integer(digits: str) -> int | float:
    """Return a number of 64 bits, as what writes JSON here takes it, or what comes near."""
    if len(digits) > _MOST_DIGITS:
        return float(digits)
    value = int(digits)
    return value if -1 << _BITS <= value < 2 << _BITS else float(digits)


_DECODER = json.JSONDecoder(strict=False, parse_int=_integer)


def decoded(text: str, place: int) -> tuple[Any, int]:
    """Return the value that begins at the place, and where it ends. Raises IncompleteError and BrokenError."""
    try:
        value, end = _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        if _comes_of_the_end(error, text):
            raise IncompleteError(len(text)) from None
        value, end = _without_commas_too_many(text, place, error.pos)
    except RecursionError:
        raise BrokenError(place + _NESTED, nested=True) from None
    if text.find("\\u", place, end) >= 0 and _SURROGATE.search(text, place, end):
        value = _shown(value)
    return value, end


def _comes_of_the_end(error: json.JSONDecodeError, text: str) -> bool:
    if error.msg.startswith("Unterminated string"):
        return True
    rest = text[error.pos : error.pos + _NEAR]
    if len(rest) == _NEAR:
        return False
    return rest.strip(BLANK) in _CUT_SIGNS or (error.msg.startswith("Invalid \\") and '"' not in rest)


def _without_commas_too_many(text: str, place: int, error_at: int) -> tuple[Any, int]:
    """Return the value without the commas behind its last items. Raises IncompleteError and BrokenError."""
    if _comma_at(text, error_at) is not None:
        for size in _MENDED:
            part, at = text[place : place + size], error_at - place
            while (comma := _comma_at(part, at)) is not None:
                part = f"{part[:comma]} {part[comma + 1 :]}"
                try:
                    value, end = _DECODER.raw_decode(part)
                except json.JSONDecodeError as error:
                    if place + size >= len(text) and _comes_of_the_end(error, part):
                        raise IncompleteError(len(text)) from None
                    at = error.pos
                except RecursionError:
                    break
                else:
                    return value, place + end
    raise BrokenError(error_at)


def _comma_at(text: str, error_at: int) -> int | None:
    """Return where the comma is, if what keeps the text from being JSON is one too many: it, or the sign behind it."""
    before = text[max(0, error_at - _NEAR) : error_at].rstrip(BLANK)
    if text[error_at : error_at + 1] in ("}", "]") and before.endswith(","):
        return max(0, error_at - _NEAR) + len(before) - 1
    return error_at if _COMMA_TOO_MANY.match(text, error_at) else None


def parsed(text: str | bytes) -> Any:
    """Return the one value that the text is; None where it is none."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    text = text.strip(BLANK)
    try:
        value, end = decoded(text, 0)
    except (IncompleteError, BrokenError):
        return None
    return value if end == len(text) else None


def _shown(value: Any) -> Any:
    """Return the value with a sign for what cannot be shown in place of half a surrogate pair."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_shown(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def end_of(pattern: re.Pattern[str], text: str, place: int) -> int:
    """Return where what a pattern finds at the place ends; the place where it finds nothing."""
    found = pattern.match(text, place)
    return place if found is None else found.end()
