"""Packages of others: absent ones, broken ones, and what either message tells to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerprof.errors import RequestError
from layerprof.machine import packages


def broken(folder: Path, name: str, code: str = "import a_missing_part") -> Path:
    """Install a package whose module does not import."""
    module = folder / name.replace("-", "_")
    module.mkdir(parents=True)
    (module / "__init__.py").write_text(code)
    facts = folder / f"{module.name}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    return folder


def test_what_is_there_is_needed_without_a_word() -> None:
    """Also where module and package have different names."""
    packages.need("It", ("optimum-quanto", "compressed-tensors"))


def test_absent_packages_are_named_together() -> None:
    """With the command that installs them."""
    with pytest.raises(RequestError) as caught:
        packages.need("It", ("accelerate", "no-such-one", "no-such-two"))
    assert caught.value.problem == "It needs the packages no-such-one and no-such-two, which are not installed."
    assert caught.value.remedy == "Install it with `pip install no-such-one no-such-two`."


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import a_missing_part", "ModuleNotFoundError: No module named 'a_missing_part'"),
        ("raise OSError('libcudart.so:\\ncannot open')", "OSError: libcudart.so: cannot open"),
    ],
)
def test_a_package_that_does_not_import_is_named_with_its_error(
    code: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises; the remedy takes it away before it is installed, since pip would find it there."""
    monkeypatch.syspath_prepend(broken(tmp_path, "half-there", code))
    with pytest.raises(RequestError) as caught:
        packages.need("It", ("half-there",))
    assert caught.value.problem == f"The package half-there is installed and cannot be imported ({cause})."
    assert caught.value.remedy == "Reinstall it: `pip uninstall -y half-there`, then `pip install half-there`."


def test_an_error_that_is_no_import_is_nobody_elses_fault() -> None:
    """And where everything imports, no package is behind one that is."""
    assert packages.behind(ValueError("a wrong shape")) is None
    assert packages.behind(ImportError("cannot import name 'x' from 'y'")) is None


@pytest.mark.parametrize("command", ["estimate", "profile"])
def test_a_broken_torchao_is_one_message_from_both_commands(command: str, tmp_path: Path) -> None:
    """Transformers imports it whatever is asked, and then names a class of its own that it could not import."""
    where = os.pathsep.join((str(broken(tmp_path, "torchao")), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-m", "layerprof", command, "--model", "demo", "--quantization", "int8"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": where},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert " ".join(done.stderr.split()) == (
        "layerprof: The package torchao is installed and cannot be imported "
        "(ModuleNotFoundError: No module named 'a_missing_part'). "
        "Reinstall it: `pip uninstall -y torchao`, then `pip install 'layerprof[quantization]'`."
    )
