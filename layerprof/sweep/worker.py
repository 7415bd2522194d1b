"""The process that carries out cells: `python -m layerprof.sweep.worker MODULE:CLASS`.

It reads one JSON request a line on its standard input and answers in JSON lines on what was its standard output; what
libraries print goes to standard error, which the engine keeps as the worker's log. It ends when its input ends, also in
the middle of a cell: a worker never outlives the sweep that started it.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from layerprof.errors import LayerprofError, RequestError, out_of_memory
from layerprof.sweep.cells import Guards, Identity, Status

Tell = Callable[[str], None]


class Runner(Protocol):
    """Carries out cells, one after the other, in one process; keeps what they share."""

    def identify(self, choices: dict[str, Any], demo: dict[str, Any]) -> Identity:
        """Return who the cell is. Raises RequestError when it cannot be carried out here."""

    def run(self, identity: Identity, repeat: int, folder: Path, tell: Tell) -> Guards | None:
        """Carry the cell out and write its run into the folder."""


def load_runner(spec: str) -> Runner:
    """Return a new runner of the class `MODULE:CLASS`."""
    module, _, name = spec.partition(":")
    runner: Runner = getattr(importlib.import_module(module), name)()
    return runner


def carry_out(runner: Runner, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Answer one request: `{"ok": ...}`, or `{"error": {"status", "reason", "remedy"}}` when it failed.

    `"spent": True` beside it asks for another process for what follows.
    """
    return _answer(runner, request, tell) | ({"spent": True} if getattr(runner, "spent", False) else {})


def _answer(runner: Runner, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    try:
        if request["do"] == "identify":
            return {"ok": runner.identify(request["choices"], request["demo"]).model_dump(mode="json")}
        identity = Identity.model_validate(request["identity"])
        guards = runner.run(identity, request["repeat"], Path(request["folder"]), tell)
        return {"ok": guards.model_dump(mode="json") if guards else None}
    except Exception as error:
        if not isinstance(error, RequestError):
            traceback.print_exc()
        status, reason = classify(error)
        remedy = error.remedy if status is Status.SKIPPED and isinstance(error, RequestError) else ""
        return {"error": {"status": status.value, "reason": reason, "remedy": remedy}}


def classify(error: BaseException) -> tuple[Status, str]:
    """Return how a cell ended that raised this error, and the reason in words."""
    if told := out_of_memory(error):
        return Status.OUT_OF_MEMORY, _one_line(told) or "the device ran out of memory"
    if isinstance(error, RequestError):
        return Status.SKIPPED, error.problem
    if isinstance(error, LayerprofError):
        return Status.FAILED, error.problem
    return Status.FAILED, f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException, most: int = 300) -> str:
    return " ".join(str(error).split())[:most]


def main(spec: str, requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more."""

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    runner = load_runner(spec)
    send({"ready": os.getpid()})
    for line in iter(_reader(requests).get, None):
        request = json.loads(line)
        send(carry_out(runner, request, lambda text: send({"tell": text})))


def _reader(requests: IO[str]) -> queue.Queue[str | None]:
    """Read requests in a thread of their own, so that the end of input ends the process whatever it is doing."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in requests:
            lines.put(line)
        os._exit(0)  # the engine is gone or wants no more: there is nobody to finish for

    threading.Thread(target=read, daemon=True).start()
    return lines


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    main(sys.argv[1], sys.stdin, own)
