"""Report formats by name: the entry-point group `layerprof.formats`, or an import path `package.module:Class`.

Ours and a user's own are found the same way, as hooks are (docs/formats.md).
"""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

from layerprof import registry
from layerprof.errors import LayerprofError, RequestError
from layerprof.report.write import BUILT_IN

if TYPE_CHECKING:
    from layerprof.records import Run
    from layerprof.report.sweep.overview import SweepData

GROUP = "layerprof.formats"
HOW = "docs/formats.md shows a format"
OURS = f"choose one of: {', '.join(BUILT_IN)}"

Method = Literal["render", "render_sweep"]


class Format(Protocol):
    """Shows a finished run in one format. It is made without arguments, once for each report."""

    def render(self, run: Run, out: IO[str]) -> None:
        """Write the run to a text stream."""


class SweepFormat(Protocol):
    """What a format has besides, that shows sweeps, too."""

    def render_sweep(self, sweep: SweepData, out: IO[str]) -> None:
        """Write the sweep to a text stream."""


def names() -> tuple[str, ...]:
    """Return the names of all installed formats, ours first."""
    installed = registry.names(GROUP)
    return (*(name for name in BUILT_IN if name in installed), *(name for name in installed if name not in BUILT_IN))


def renderer(name: str, method: Method) -> Callable[[Any, IO[str]], None]:
    """Return a format's method; the format is loaded when it is called.

    It raises RequestError for what cannot be loaded or lacks the method, and LayerprofError where a user's own format
    fails while it renders.
    """

    def render(result: Any, out: IO[str]) -> None:
        made = _made(name)
        if not callable(getattr(made, method, None)):
            raise _lacking(name, method)
        before = out.tell() if isinstance(out, io.StringIO) else None
        try:
            getattr(made, method)(result, out)
        except LayerprofError:
            raise
        except (Exception, SystemExit) as error:
            if type(made).__module__.partition(".")[0] == "layerprof":  # a fault of ours keeps its traceback
                raise
            raise LayerprofError(
                f"The report format '{name}' failed: {type(error).__name__}: {error} ({_place(error, made)}).",
                f"Correct it ({HOW}), or {OURS}.",
            ) from error
        if before is not None and out.tell() == before:  # it returned the text, or was `async`, or a generator
            raise LayerprofError(
                f"The report format '{name}' failed: its {method} wrote nothing.",
                f"Write to the stream that it is given ({HOW}), or {OURS}.",
            )

    return render


def _made(name: str) -> object:
    """Return the format itself. A user's may do anything while it is made."""
    target = registry.find(name, GROUP, "report format")
    if not isinstance(target, type):
        return target
    try:
        return target()
    except (Exception, SystemExit) as error:
        raise RequestError(
            f"The report format '{name}' cannot be used: {target.__name__}() raised {type(error).__name__}: {error}.",
            f"It is made without arguments ({HOW}).",
        ) from error


def _lacking(name: str, method: Method) -> RequestError:
    if method == "render":
        problem = f"The report format '{name}' cannot be used: it has no method render."
        return RequestError(problem, f"{HOW}; or {OURS}.")
    return RequestError(
        f"The report format '{name}' shows no sweeps: it has no method render_sweep.",
        f"Add the method ({HOW}), give the run of a cell, below cells/, or {OURS}.",
    )


def _place(error: BaseException, made: object) -> str:
    """Return the line of the format's own file from which the error came; else that which raised it."""
    own = getattr(sys.modules.get(type(made).__module__), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == own), frames[-1])
    return f"{frame.filename}, line {frame.lineno}"
