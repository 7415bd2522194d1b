"""Packages of others that a request needs -> that they are installed and can be imported, or what to do."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from layerprof.errors import RequestError, chain, described
from layerprof.machine import environment

EXTRA = ("torchao", "bitsandbytes", "accelerate", "optimum-quanto", "compressed-tensors")
"""The packages that `layerprof[quantization]` installs."""
BY_ITSELF = (*EXTRA, "peft")
"""Packages that transformers imports where they are installed, whether or not they are asked for."""
MODULES = {"optimum-quanto": "optimum.quanto", "amd-quark": "quark", "flute-kernel": "flute"}
"""The module of a package whose name in the index is not the module's with hyphens."""
SHOWN = 200


def need(what: str, packages: Iterable[str]) -> None:
    """Raise RequestError naming the packages that are not installed, and how they are; or one that cannot be imported.

    `packages` are names of the package index, `what` is the subject of the message.
    """
    needed = tuple(packages)
    absent = [name for name in needed if environment.package_version(name) is None]
    if absent:
        is_are = ("package", "is") if len(absent) == 1 else ("packages", "are")
        raise RequestError(
            f"{what} needs the {is_are[0]} {' and '.join(absent)}, which {is_are[1]} not installed.",
            f"Install it with `{_command(absent)}`.",
        )
    for name in needed:
        if refused := unusable(name):
            raise refused


def unusable(name: str) -> RequestError | None:
    """Return what is wrong with an installed package that cannot be imported; None where it can be."""
    try:
        importlib.import_module(MODULES.get(name, name.replace("-", "_")))
    except Exception as error:  # whatever the package raises: a missing part, or versions that do not fit
        cause = " ".join(described(error).split())[:SHOWN].rstrip(".")
        return RequestError(
            f"The package {name} is installed and cannot be imported ({cause}).",
            f"Reinstall it: `pip uninstall -y {name}`, then `{_command([name])}`.",
        )
    return None


def behind(error: BaseException) -> RequestError | None:
    """Return which installed package is at fault where transformers could not import something; None if none is.

    Its own message names the model's class, not the package that failed inside.
    """
    if not any(isinstance(one, ImportError) for one in chain(error)):
        return None
    installed = (name for name in BY_ITSELF if environment.package_version(name) is not None)
    return next((refused for name in installed if (refused := unusable(name))), None)


def _command(names: list[str]) -> str:
    return f"pip install {' '.join(names)}" if set(names) - set(EXTRA) else "pip install 'layerprof[quantization]'"
