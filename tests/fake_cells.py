"""A runner of cells that needs no model: what each cell shall do stands in its `layers` setting.

`layers = "ok"` writes a small run; `oom`, `crash`, `kill`, `hang`, `error`, `refuse` and `noisy` do what they say;
`slow` takes half a second; `traced` wants no cell after it in its process; `flaky:FILE` kills its process the first
time. `model = "none"` cannot be identified. Every cell that starts is noted in the file that LAYERPROF_FAKE_LOG names,
with the process that carried it out.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sample_run import sample_run, samples

from layerprof.errors import RequestError
from layerprof.runs import store
from layerprof.sweep.cells import Guards, Identity


class OutOfMemoryError(RuntimeError):
    """Named as torch names it."""


class FakeRunner:
    """Carries out cells that are told what to do."""

    spent = False

    def identify(self, choices: dict[str, Any], demo: dict[str, Any]) -> Identity:
        """Take the request as it is; `model = "none"` is refused, and "dies" ends the process."""
        if choices.get("model") == "none":
            raise RequestError("There is no model 'none'.", "Give another.")
        if choices.get("model") == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        merged = choices | (demo if choices.get("model", "demo") == "demo" else {})
        return Identity(
            choices={"device": "cpu"} | merged, model={"revision": "m1"}, data={"ids": ["a"]}, device="cpu", versions={}
        )

    def run(self, identity: Identity, repeat: int, folder: Path, tell: Callable[[str], None]) -> Guards | None:
        """Do what the cell's `layers` says."""
        what = str(identity.choices.get("layers", "ok"))
        if log := os.environ.get("LAYERPROF_FAKE_LOG"):
            with Path(log).open("a") as file:
                file.write(f"{os.getpid()} {identity.key(repeat)} {what}\n")
        tell("at it")
        self.spent = what == "traced"
        _act(what)
        run = sample_run(settings=sample_run().settings | identity.choices)
        store.save(run, folder, samples=samples())
        return Guards(batch_invariant=1.0, checked=2, truncated_share=0.0)


def _act(what: str) -> None:
    if what == "oom":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    if what == "error":
        raise ValueError("the tensor has\nno end")
    if what == "refuse":
        raise RequestError("A budget of 5 tokens would cut the options.", "Give more.")
    if what == "crash":
        os._exit(7)
    if what == "kill":
        print("about to go", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(600)
    if what == "noisy":
        print("a library prints to standard output")
    if what == "slow":
        time.sleep(0.5)
    if what.startswith("flaky:"):
        mark = Path(what.partition(":")[2])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
