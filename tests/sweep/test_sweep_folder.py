"""A sweep's folder is one sweep's at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerprof.errors import RequestError
from layerprof.sweep.folder import SweepFolder


def test_a_folder_that_is_held_names_its_holder(tmp_path: Path) -> None:
    """As often as it is asked for, and the asking does not take the name away; afterwards it is free."""
    with SweepFolder(tmp_path).locked():
        for _ in range(2):
            with pytest.raises(RequestError, match=rf"A sweep is running .*process {os.getpid()} on "):
                SweepFolder(tmp_path).locked().__enter__()
    with SweepFolder(tmp_path).locked():
        pass


def test_a_folder_is_let_go_after_an_error(tmp_path: Path) -> None:
    """Whatever ends the sweep, the next one can begin, also in the same process."""
    with pytest.raises(KeyboardInterrupt), SweepFolder(tmp_path).locked():
        raise KeyboardInterrupt
    with SweepFolder(tmp_path).locked():
        pass


def test_a_holder_without_a_name_is_another_process(tmp_path: Path) -> None:
    """Between taking the folder and writing its name there is a moment."""
    with SweepFolder(tmp_path).locked():
        (tmp_path / "sweep.lock").write_text("")
        with pytest.raises(RequestError, match="another process"):
            SweepFolder(tmp_path).locked().__enter__()


def test_a_folder_that_cannot_be_held_is_told(tmp_path: Path) -> None:
    """One message with its remedy: here a folder stands where the lock would."""
    (tmp_path / "sweep.lock").mkdir()
    with pytest.raises(RequestError, match="cannot be held") as caught:
        SweepFolder(tmp_path).locked().__enter__()
    assert "--output" in caught.value.remedy
