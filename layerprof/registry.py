"""Hooks by name: the entry-point group `layerprof.hooks`, or an import path `package.module:Class`.

Nothing in layerprof imports an instrument statically, so ours and a user's own are found the same way.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from layerprof.errors import RequestError

GROUP = "layerprof.hooks"


def names() -> tuple[str, ...]:
    """Return the names of all installed hooks, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load(name: str) -> Any:
    """Return the class registered as `name`, or imported from `package.module:Class`.

    Raises RequestError when the name is not registered, or its module cannot be imported.
    """
    point = next(iter(entry_points(group=GROUP, name=name)), None)
    if point is None and ":" in name:
        point = EntryPoint(name=name, value=name, group=GROUP)
    if point is None:
        near = difflib.get_close_matches(name, names(), n=1)
        guess = f"Did you mean '{near[0]}'? " if near else ""
        raise RequestError(
            f"No hook is called '{name}'.",
            f"{guess}Installed: {', '.join(names()) or 'none (reinstall layerprof)'}; "
            "your own can be given as package.module:Class.",
        )
    try:
        target: Any = importlib.import_module(point.module)
        for part in point.attr.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise RequestError(
            f"The hook '{name}' cannot be loaded from {point.value}: {error}.",
            "Install the package that holds it, or correct the import path.",
        ) from error
    return target
