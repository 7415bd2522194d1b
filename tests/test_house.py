"""The house holds: packages on disk are packages in the wheel, and data flows one way."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER_OF = {"layerprof.hooks": "hooks"}


def _modules(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in path.parts]


def _imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Return dotted names that a file imports, TYPE_CHECKING blocks left out."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_setup_cfg_lists_every_package_on_disk() -> None:
    """`packages` is written by hand, so a folder that it forgets would be missing from the wheel without a word."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    on_disk = {".".join(path.parent.relative_to(ROOT).parts) for path in _modules("layerprof")}
    hooks = {".".join(("layerprof", *path.parent.relative_to(ROOT).parts)) for path in _modules("hooks")}
    assert listed == on_disk | hooks


def test_nothing_in_layerprof_imports_the_hooks_statically() -> None:
    """Hooks are found through entry points, so a user's own instrument and ours take the same way."""
    guilty = [str(path) for path in _modules("layerprof") if any("hooks" in x.split(".") for x in _imports(path))]
    assert guilty == []


def test_records_import_nothing_of_ours() -> None:
    """Every step of the way imports records; records import no step."""
    assert not any(name.startswith("layerprof") for name in _imports(ROOT / "layerprof/records.py"))


def test_reports_import_neither_torch_nor_hooks() -> None:
    """A saved run can be shown on a machine without torch."""
    for path in _modules("layerprof/report"):
        names = {name.split(".")[0] for name in _imports(path)}
        assert not names & {"torch", "transformers"}, path


@pytest.mark.parametrize(
    "statement",
    [
        "import layerprof",
        "import layerprof.cli",
        "import layerprof.report.kinds, layerprof.report.formats.terminal, layerprof.report.formats.html",
        "import layerprof.report.formats.tensorboard",
        "import layerprof.books.ledger, layerprof.runs.store, layerprof.trace.attribute, layerprof.quality.wer",
        "import layerprof.energy",
        "import layerprof.settings, layerprof.data.datasets, layerprof.models.subject, layerprof.layers.find",
        "import layerprof.measure.conduct",
        "import layerprof.demo",
    ],
)
def test_importing_loads_no_torch(statement: str) -> None:
    """What the command line and the reports import stays light: torch is loaded by the command that needs it."""
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_no_module_is_called_plain_hooks() -> None:
    """The folder hooks/ is installed as layerprof.hooks; no generic package lands in anyone's site-packages."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('hooks') is not None)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False, cwd=ROOT, timeout=120).returncode == 0


def test_every_entry_point_loads() -> None:
    """A hook that is registered can be loaded by its name."""
    from layerprof import registry

    assert {"latency", "shapes", "kernels", "memory"} <= set(registry.names())
    for name in registry.names():
        assert callable(registry.find(name))


# --- other packages' insides ------------------------------------------------------------------------------------

INTERNALS = ROOT / "layerprof/machine/internals.py"
PUBLISHED = {"_exit", "_fields"}
"""Names that begin with an underscore and are documented all the same: of `os`, and of named tuples."""
ASKING = {"getattr", "hasattr", "setattr", "delattr"}


def _private(name: str) -> bool:
    dunder = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and name.strip("_") != "" and not dunder and name not in PUBLISHED


def _of_self(node: ast.expr) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    return called or (isinstance(node, ast.Name) and node.id in ("self", "cls"))


def _reached_into(path: Path) -> set[str]:
    """Return the private names that a file reads of anything but itself: imports, attributes, names given as text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {part for alias in node.names for part in alias.name.split(".")}
        elif isinstance(node, ast.ImportFrom):
            found |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Attribute) and not _of_self(node.value):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASKING:
            found |= {
                part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
    return {name for name in found if _private(name)}


def _texts(path: Path) -> set[str]:
    """Return all literal texts of a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("folder", ["layerprof", "hooks"])
def test_one_file_alone_reads_the_insides_of_other_packages(folder: str) -> None:
    """A private name may go with any release: all of them stand in one file, each with a test of its own."""
    known = _reached_into(INTERNALS) | {"_orig_mod"}
    guilty = {
        str(path.relative_to(ROOT)): names
        for path in _modules(folder)
        if path != INTERNALS and (names := _reached_into(path) | (_texts(path) & known))
    }
    assert guilty == {}
