"""Which files are read for captures: those that are given, and in folders all that may be traces. Pure, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerprof.errors import RequestError, TraceError
from layerprof.trace.file import TraceFile

SUFFIXES = (".json", ".json.gz")
"""How names of traces end in a folder."""
MOST_NAMED = 3
"""Files left out that are named before the rest is only counted."""


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """A file that may be the trace of a capture; `folder` is the one that it was found in, None where it was given."""

    path: Path
    folder: Path | None = None

    @property
    def is_trace(self) -> bool:
        """Whether events can be read from it."""
        try:
            return any(True for _ in TraceFile(self.path))
        except TraceError:
            return False

    def found_again(self, trace: object) -> bool:
        """Return whether it is the trace itself, which lies in the folder, too."""
        same = isinstance(trace, str | Path) and Path(trace).resolve() == self.path.resolve()
        return self.folder is not None and same


def listed(captures: Iterable[str | Path]) -> list[CaptureFile]:
    """Return the files, each once, and those of folders at any depth. Raises RequestError for a folder without any."""
    files: dict[Path, CaptureFile] = {}
    given = [Path(path) for path in captures]
    for path in given:
        if not path.is_dir():
            files.setdefault(path.resolve(), CaptureFile(path))
    for folder in filter(Path.is_dir, given):
        found = sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())
        if not found:
            raise RequestError(
                f"The folder {folder} has no traces of captures.",
                f"Give one with files that end in {' or '.join(SUFFIXES)}.",
            )
        for path in found:
            files.setdefault(path.resolve(), CaptureFile(path, folder))
    return list(files.values())


def remarks(left_out: Sequence[CaptureFile]) -> list[str]:
    """Return what is to be said of the files of folders that are no traces or in which nothing was captured."""
    if not left_out:
        return []
    names = [str(file.path.relative_to(file.folder)) if file.folder else str(file.path) for file in left_out]
    told = ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
    folders = " and ".join(dict.fromkeys(str(file.folder) for file in left_out))
    are = "1 file is" if len(names) == 1 else f"{len(names)} files are"
    return [f"Of {folders} {are} left out, for want of a captured CUDA graph: {told}."]
