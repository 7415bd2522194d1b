"""The error family. Every message ends in its remedy; only the command line prints and exits.

::

    LayerprofError            exit 1
    ├── RequestError          exit 2: the request is wrong, nothing was started
    │   ├── SelectorError     a --layers selector that matches nothing
    │   └── TraceError        a trace file that cannot be read
    ├── RunFailedError        exit 1: the run or cell started and failed
    └── NothingFinishedError  exit 130: interrupted before there was anything to save
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MEMORY_SIGNS = ("can't allocate memory", "not enough memory", "out of memory")


class LayerprofError(Exception):
    """Base of all errors that a user sees: one sentence of what is wrong, one of what to do."""

    exit_code = 1

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy


class RequestError(LayerprofError):
    """The request cannot be carried out as it stands; nothing was measured."""

    exit_code = 2


class SelectorError(RequestError):
    """A layer selector that cannot be read or that matches no layer."""


class RunFailedError(LayerprofError):
    """A run that started and could not be finished."""


class NothingFinishedError(LayerprofError):
    """The user interrupted before the first answer."""

    exit_code = 130


class TraceError(RequestError):
    """A profiler trace that is truncated, malformed, or not a trace."""


def described(error: BaseException) -> str:
    """Return an error's class and message, e.g. `KeyError: 'x'`; the class alone where it has none that can be told."""
    try:
        message = str(error).strip()
    except Exception:  # an error of the user's own, of any kind
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def nearest(name: object, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the known names that are nearest to what was written, the nearest first; none below the cutoff."""
    return difflib.get_close_matches(str(name), list(known), n=most, cutoff=cutoff)


def did_you_mean(name: object, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `Did you mean 'x'? ` to stand before a remedy, a space at its end; empty where no known name is near."""
    return suggestion(f"'{near}'" for near in nearest(name, known, cutoff=cutoff))


def suggestion(names: Iterable[object]) -> str:
    """Return `Did you mean x or y? ` of names that are found to be near, as they are to be read; empty for none."""
    listed = " or ".join(str(name) for name in names)
    return f"Did you mean {listed}? " if listed else ""


def chain(error: BaseException) -> tuple[BaseException, ...]:
    """Return an error and what it came from, outermost first."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    return tuple(links)


def out_of_memory(error: BaseException) -> BaseException | None:
    """Return what in the chain of an error says that memory ran out, of the device or of the host; None if nothing.

    torch raises `OutOfMemoryError` for its CUDA allocator, a RuntimeError with `CUDA out of memory` or `CUDA error: out
    of memory` from below it, and one with `can't allocate memory` (elsewhere than on Linux `not enough memory`) for its
    CPU allocator.
    """
    return next((one for one in chain(error) if _says_memory(one)), None)


def _says_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in MEMORY_SIGNS)
