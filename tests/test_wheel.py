"""The wheel holds every module and data file, and works from another folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("layerprof", "hooks", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a clean copy, as a stale build folder could put dropped files back."""
    clean = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, clean / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, clean / name)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(clean)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_every_module_and_data_file_is_in_the_wheel(wheel: Path) -> None:
    """What is on disk below layerprof/ and hooks/ is in the wheel, hooks under layerprof/hooks/."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in (("layerprof", "layerprof"), ("hooks", "layerprof/hooks")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{place}/{path.relative_to(ROOT / folder).as_posix()}" in inside
    assert not any(name.startswith("hooks/") for name in inside)


def test_the_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, with the checkout out of reach, it finds its hooks, its model and its data."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import layerprof, layerprof.hooks.latency\n"
        "from layerprof import registry\n"
        "from layerprof.demo import MODEL_FOLDER, rows\n"
        f"assert layerprof.__file__.startswith({str(site)!r}), layerprof.__file__\n"
        f"assert layerprof.hooks.latency.__file__.startswith({str(site)!r})\n"
        "assert (MODEL_FOLDER / 'model.safetensors').is_file()\n"
        "assert len(list(rows('textvqa', 2))) == 2\n"
        "assert registry.load(registry.LATENCY).__name__ == 'LatencyHook'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
