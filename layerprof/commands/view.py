"""`layerprof view`: TensorBoard on a run, or on a folder of runs."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from layerprof.commands import printing
from layerprof.errors import RequestError
from layerprof.report import log_folder


def serve(path: Path, port: int, say: Callable[[str], None] = printing.say) -> int:
    """Run TensorBoard until it is stopped; return its exit code. Event files that are missing are written first.

    Raises RequestError when there is no run, the port is taken, or TensorBoard is not installed.
    """
    log_folder.arguments(path, port)  # tells a path that holds no run before anything else
    if importlib.util.find_spec("tensorboard") is None:
        raise RequestError("TensorBoard is not installed.", "Install it: pip install tensorboard.")
    port = _free(port)
    for folder in log_folder.run_folders(path.parent if path.is_file() else path):
        trouble = log_folder.ensure(folder)
        if trouble:
            say(trouble)
    say(f"TensorBoard on http://localhost:{port}/ (stop with Ctrl-C)")
    try:
        return subprocess.run(
            [sys.executable, "-m", "tensorboard.main", *log_folder.arguments(path, port)], check=False
        ).returncode
    except KeyboardInterrupt:
        return 0


def _free(port: int) -> int:
    """Return the port, or one that is free for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("localhost", port))
        except (OSError, OverflowError):
            raise RequestError(
                f"Port {port} cannot be used.", "Give another with --port, or --port 0 for any that is free."
            ) from None
        return int(probe.getsockname()[1])
