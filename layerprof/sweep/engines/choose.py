"""An engine by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerprof.settings import unknown_choice
from layerprof.sweep.engines.engine import Engine

NAMES = ("local", "ray")


def open_engine(name: str, *, runner: str, folder: Path | None = None, **options: Any) -> Engine:
    """Return an engine by its name.

    `runner` names what carries out a cell (`package.module:Class`), `folder` takes the log.
    Raises RequestError for an unknown name or a missing package.
    """
    if name == "local":
        from layerprof.sweep.engines.local import LocalEngine

        return LocalEngine(folder, runner)
    if name == "ray":
        from layerprof.sweep.engines.cluster import RayEngine

        return RayEngine(runner, **options)
    raise unknown_choice("engine", name, NAMES)
