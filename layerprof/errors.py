"""The error family. Every message ends in its remedy; only the command line prints and exits.

::

    LayerprofError            exit 1
    ├── RequestError          exit 2: the request is wrong, nothing was started
    │   └── SelectorError     a --layers selector that matches nothing
    ├── RunFailedError        exit 1: the run or cell started and failed
    ├── NothingFinishedError  exit 130: interrupted before there was anything to save
    └── TraceError            exit 2: a trace file that cannot be read
"""

from __future__ import annotations


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
