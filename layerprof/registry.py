"""Hooks by name: the entry-point group `layerprof.hooks`, or an import path `package.module:Class`.

Nothing in layerprof imports an instrument statically, so ours and a user's own are found the same way. Report formats
are found so, too, in a group of their own.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from layerprof.errors import RequestError, did_you_mean

GROUP = "layerprof.hooks"
METHODS = ("__enter__", "__exit__", "batch", "reading")
NOT_CALLED = "it cannot be called with (model, layers)"


def names(group: str = GROUP) -> tuple[str, ...]:
    """Return the names of all that is installed in a group, sorted; the hooks' unless another is given."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def load(name: str) -> Any:
    """Return the hook registered as `name`, or imported from `package.module:Class`. Raises RequestError as `find`."""
    return find(name, GROUP, "hook")


def find(name: str, group: str, what: str) -> Any:
    """Return what is registered as `name` in a group, or imported from `package.module:Class`; messages call it `what`.

    Raises RequestError when the name is not registered, or its module cannot be imported.
    """
    point = next(iter(entry_points(group=group, name=name)), None)
    if point is None and ":" in name and EntryPoint.pattern.match(name):
        point = EntryPoint(name=name, value=name, group=group)
        _see_current_folder()
    if point is None:
        known = names(group)
        raise RequestError(
            f"No {what} is called '{name}'.",
            f"{did_you_mean(name, known)}Installed: {', '.join(known) or 'none (reinstall layerprof)'}; "
            "your own can be given as package.module:Class.",
        )
    try:
        target: Any = importlib.import_module(point.module)
        for part in point.attr.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise RequestError(
            f"The {what} '{name}' cannot be loaded from {point.value}: {error}.",
            "Install the package that holds it, or correct the import path.",
        ) from error
    except (Exception, SystemExit) as error:  # a module of the user's may do anything while it is imported
        raise RequestError(
            f"The {what} '{name}' cannot be loaded: importing {point.module} raised {type(error).__name__}: {error}.",
            f"Correct the module until `python -c 'import {point.module}'` works.",
        ) from error
    return target


def _see_current_folder() -> None:
    """Let a module beside the user be imported, as `python -m` does; last, so that it hides no package."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def load_own(name: str) -> Any:
    """Return what `load` does, once it looks like a hook that a run can walk with.

    Raises RequestError before anything is measured for what is no class or function of `(model, layers)`, and for a
    class without the methods that a walk calls.
    """
    target = load(name)
    lacks = [method for method in METHODS if isinstance(target, type) and not callable(getattr(target, method, None))]
    problem = f"it has no {', no '.join(lacks)}" if lacks else "" if _takes_two(target) else NOT_CALLED
    if problem:
        raise RequestError(
            f"'{name}' cannot be used as --hook: {problem}.",
            "docs/hooks.md shows a hook; of the installed ones shapes, latency and kernels can walk by themselves.",
        )
    return target


def _takes_two(target: Any) -> bool:
    try:
        inspect.signature(target).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # written in C: it does not tell
        return True
    return True
