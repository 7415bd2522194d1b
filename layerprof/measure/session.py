"""A run in flight: what was asked, what each pass has read so far, and the live model between them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerprof.books.evidence import Asked, Read

if TYPE_CHECKING:
    from pathlib import Path

    from layerprof.measure.progress import Progress
    from layerprof.models.compile_layers import Compiled
    from layerprof.models.decode_graph import DecodeGraphs
    from layerprof.models.subject import Subject


@dataclass
class Session:
    """Everything the passes share: `asked` stays as it is, each pass fills its own part of `read`.

    `warmed` and `rehearsed` are shapes of batches that ran unmeasured, without the span hooks and with them;
    `captured_warm` counts the decode steps that were captured meanwhile.
    """

    asked: Asked
    subject: Subject
    folder: Path
    progress: Progress
    read: Read = field(default_factory=Read)
    compiled: Compiled | None = None
    graphs: DecodeGraphs | None = None
    warmed: set[Hashable] = field(default_factory=set)
    rehearsed: set[Hashable] = field(default_factory=set)
    captured_warm: int = 0
