"""What a Ray task does on its node: tells who cells are, or carries one out in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layerprof.sweep.worker import carry_out, load_runner

MOST_FILE_BYTES = 512 * 10**6
"""Larger files of a run stay on the node: what a task yields travels through Ray's memory."""


def identify(runner: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell who cells are."""
    loaded = load_runner(runner)
    return [carry_out(loaded, request, lambda _: None) for request in requests]


def run(runner: str, request: dict[str, Any], gpus: float) -> Iterator[dict[str, Any]]:
    """Carry a cell out in a folder of its own; yield where it runs, then the answer with the folder's files."""
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a CPU cell must not find a card that another cell measures
    yield {"node": f"{socket.gethostname()} process {os.getpid()}"}
    place = Path(tempfile.mkdtemp(prefix="layerprof-"))
    try:
        folder = place / "cell"
        folder.mkdir()
        answer = carry_out(load_runner(runner), request | {"folder": str(folder)}, lambda _: None)
        yield {"answer": answer, "files": _files(folder) if "ok" in answer else {}}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _files(folder: Path) -> dict[str, bytes]:
    found = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.stat().st_size <= MOST_FILE_BYTES]
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}
