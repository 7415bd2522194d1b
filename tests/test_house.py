"""The house holds: packages on disk are packages in the wheel, data flows one way, and no room is too full."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_LINES = 400
MOST_LOOSE_FILES = 8
WINGS = sorted(path.parent for path in (ROOT / "layerprof").glob("*/__init__.py"))


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
    for path in _modules("layerprof/records"):
        others = {name for name in _imports(path) if name.startswith("layerprof")}
        assert all(name.startswith("layerprof.records") for name in others), path


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


# --- no circles -------------------------------------------------------------------------------------------------


def _named(root: Path) -> dict[str, Path]:
    """Return every file of the house by the name under which it is imported; hooks/ is `layerprof.hooks`."""
    found: dict[str, Path] = {}
    for folder, prefix in (("layerprof", ()), ("hooks", ("layerprof",))):
        for path in sorted((root / folder).rglob("*.py")):
            parts = (*prefix, *path.relative_to(root).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imported(name: str, files: dict[str, Path]) -> set[str]:
    """Return the files that one imports by any statement in it: inside functions, for types only, relative ones too."""
    package = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(files[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # A name is the file of that name in the package, else something that the package's own file holds.
            found |= {full if (full := f"{base}.{alias.name}") in files else base for alias in node.names}
    return (found & files.keys()) - {name}


def _circles(root: Path) -> list[list[str]]:
    """Return the sets of files each of which is imported, through others or at once, by what it imports."""
    files = _named(root)
    direct = {name: _imported(name, files) for name in files}
    reached: dict[str, set[str]] = {}
    for name in files:
        seen, fresh = set[str](), {name}
        while fresh:
            fresh = {inner for outer in fresh for inner in direct[outer]} - seen
            seen |= fresh
        reached[name] = seen
    circles = {tuple(sorted({name} | {x for x in reached[name] if name in reached[x]})) for name in files}
    return sorted([*circle] for circle in circles if len(circle) > 1)


def test_no_two_files_import_each_other() -> None:
    """Nor three in a round: type-only imports count, and so does a package's own file against what lies in it."""
    assert _circles(ROOT) == []


def test_a_circle_would_be_found(tmp_path: Path) -> None:
    """By absolute, relative, late and type-only imports, through a package's own file, across hooks."""
    texts = {
        "layerprof/__init__.py": "",
        "layerprof/a.py": "from layerprof import b",
        "layerprof/b.py": "def f():\n    import layerprof.c",
        "layerprof/c.py": "if TYPE_CHECKING:\n    from .a import X",
        "layerprof/d/__init__.py": "from layerprof.d.e import x",
        "layerprof/d/e.py": "from layerprof.d import y",
        "layerprof/f.py": "import layerprof.hooks.g",
        "hooks/__init__.py": "",
        "hooks/g.py": "from .. import f",
        "layerprof/h.py": "from layerprof import a, d, f, records",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _circles(tmp_path) == [
        ["layerprof.a", "layerprof.b", "layerprof.c"],
        ["layerprof.d", "layerprof.d.e"],
        ["layerprof.f", "layerprof.hooks.g"],
    ]


# --- rooms ------------------------------------------------------------------------------------------------------


def test_few_files_lie_loose() -> None:
    """What is a step of the way has a wing; beside them lie the ground, the face and how to start it."""
    assert len(list((ROOT / "layerprof").glob("*.py"))) <= MOST_LOOSE_FILES


def test_no_file_is_too_long_to_be_read_at_a_time() -> None:
    """A file that grows beyond this is two."""
    lengths = {
        path: len(path.read_text().splitlines()) for folder in ("layerprof", "hooks") for path in _modules(folder)
    }
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MOST_LINES} == {}


@pytest.mark.parametrize("wing", WINGS, ids=lambda path: path.name)
def test_every_wing_says_what_enters_what_leaves_and_what_it_may_import(wing: Path) -> None:
    """The three sentences that a newcomer reads first: `In:`, `Out:` and `May import:`."""
    told = ast.get_docstring(ast.parse((wing / "__init__.py").read_text())) or ""
    assert [word for word in ("In: ", "Out: ", "May import: ") if word not in told] == []
