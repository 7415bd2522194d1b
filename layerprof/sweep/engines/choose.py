"""An engine by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerprof.settings import unknown_choice
from layerprof.sweep.engines.engine import Engine
from layerprof.sweep.worker import REAL

NAMES = ("local", "ray")


def open_engine(name: str, *, folder: Path | None = None, runner: str = REAL, **options: Any) -> Engine:
    """Return an engine by its name.

    `folder` takes its log. Raises RequestError for an unknown name or a missing package.
    """
    if name == "local":
        from layerprof.sweep.engines.local import LocalEngine

        return LocalEngine(folder, runner)
    if name == "ray":
        from layerprof.sweep.engines.cluster import RayEngine

        return RayEngine(runner, **options)
    raise unknown_choice("engine", name, NAMES)
