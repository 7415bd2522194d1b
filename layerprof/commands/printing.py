"""Where text goes: what all commands share between a result and the user's terminal or files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from layerprof.report import units, write
from layerprof.report.write import Formats

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def console(plain: bool = False) -> Console:
    """Return the console on standard output; a plain one breaks no line."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=plain)


def say(text: str) -> None:
    """Print a message at once."""
    sys.stdout.write(_shown(text) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Print a message on standard error."""
    sys.stderr.write(_shown(text) + "\n")


def show(result: T, formats: Formats[T], format_name: str, output: Path | None) -> None:
    """Show a result on standard output, or in the file of -o, and say so. Raises RequestError as `report.write`."""
    written = write.write(result, formats, format_name, file(output), console())
    if written is not None:
        say(f"Wrote {written}")


def file(output: Path | None) -> Path | None:
    """Return the file of -o; `-` is standard output, as with --json."""
    return None if output is None or str(output) == "-" else output


def emit(text: str, target: str) -> None:
    """Write JSON to the file of --json, or to standard output for `-`. Raises RequestError as `report.write`."""
    if target == "-":
        sys.stdout.write(text + "\n")
    else:
        write.to_file(text + "\n", Path(target).expanduser())
        say(f"Wrote {target}")


def _shown(text: str) -> str:
    """Return text that no terminal obeys: names of files, samples and models come from anywhere."""
    return units.printable(text, keep="\n\t")
