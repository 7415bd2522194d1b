"""`layerprof view`: the port is one that can be used, and the address that is told is the one that is served."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sample_run import sample_run

from layerprof.commands import view
from layerprof.errors import RequestError
from layerprof.runs import store


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note what would be started in place of starting it."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_port_0_is_any_that_is_free(tmp_path: Path, started: list[list[str]]) -> None:
    """The free port stands in the address and in TensorBoard's arguments."""
    store.save(sample_run(), tmp_path)
    told: list[str] = []
    assert view.serve(tmp_path, 0, told.append) == 0
    port = started[0][started[0].index("--port") + 1]
    assert int(port) > 0
    assert f"localhost:{port}/" in told[-1]


@pytest.mark.parametrize("port", [-1, 70000, None])
def test_a_port_that_cannot_be_used_is_refused(port: int | None, tmp_path: Path, started: list[list[str]]) -> None:
    """Numbers that are no port, and one that somebody else holds."""
    store.save(sample_run(), tmp_path)
    with socket.socket() as busy:
        busy.bind(("localhost", 0))
        busy.listen()
        with pytest.raises(RequestError, match="cannot be used") as caught:
            view.serve(tmp_path, busy.getsockname()[1] if port is None else port, print)
    assert "--port 0" in caught.value.remedy
    assert not started
