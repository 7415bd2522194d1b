"""Cells as Ray tasks: one GPU and a fresh process each, one measuring cell a node.

A node that may measure has the custom resource `measure`; a task takes one of it, so that no two cells share a node's
processors, power and heat. Files travel through Ray, so the nodes need no common file system.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from layerprof.errors import RequestError, RunFailedError
from layerprof.sweep.cells import Cell, Guards, Identity, Outcome, Status
from layerprof.sweep.engines import task
from layerprof.sweep.engines.engine import Job, Refusal, Watcher

MEASURE = "measure"
ATTEMPTS = 2
"""A crash may be the node's fault, so it is tried once more; errors, lack of memory and timeouts are the cell's."""
START_TIMEOUT_S = 600.0
POLL_S = 0.5
CELLS_OPTIONS = {"max_calls": 1, "max_retries": 0, "num_returns": "streaming"}


@dataclass
class Flight:
    """A task under way: its results, which attempt it is, and since when it runs (None: it waits for a place)."""

    job: Job
    stream: Any
    attempt: int = 1
    since: float | None = None
    node: str = ""
    submitted: float = field(default_factory=time.monotonic)


class RayEngine:
    """Cells on a Ray cluster, or on this machine where none is running."""

    def __init__(self, runner: str, *, address: str | None = None, slots: int | None = None) -> None:
        self.ray = _ray()
        self.runner = runner
        self.address = address
        self.slots = slots
        self.started = False

    def __enter__(self) -> RayEngine:
        if not self.ray.is_initialized():
            self._connect()
            self.started = True
        return self

    def __exit__(self, *error: object) -> None:
        if self.started:
            self.ray.shutdown()

    def _connect(self) -> None:
        """Join the cluster at the address, or start one on this machine with the `measure` resource."""
        shared: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": "ERROR",
            "runtime_env": {"env_vars": _environment()},
        }
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        address = self.address or os.environ.get("RAY_ADDRESS")
        where = (
            {"address": address} if address else {"resources": {MEASURE: self.slots or 1}, "include_dashboard": False}
        )
        try:
            self.ray.init(**where, **shared)
        except Exception as error:  # Ray raises plain Exception when its own processes are slow to start
            self.ray.shutdown()
            raise RequestError(
                f"The Ray cluster at {address or 'this machine'} cannot be used ({_line(error)}).",
                "Start it with `ray start --head --resources '{\"measure\": 1}'` (docs/cluster.md).",
            ) from None

    # --- who the cells are --------------------------------------------------------------------------------------

    def identify(self, cells: Sequence[Cell]) -> list[Identity | Refusal]:
        """Ask one node who the cells are; all nodes are taken to be alike."""
        needs = {cell.request: _gpus(cell.choices) for cell in cells}
        gpus = max(needs.values(), default=0.0)
        gpus = gpus if self._places(gpus) else 0.0  # cells that need what is not there are refused one by one
        self._refuse_if_infeasible(gpus)
        asking = self._task(task.identify, gpus, {"max_calls": 1, "max_retries": 1})
        asked = [{"do": "identify", "choices": cell.choices, "demo": cell.demo} for cell in cells]
        try:
            answers = self.ray.get(asking.remote(self.runner, asked), timeout=START_TIMEOUT_S)
        except self.ray.exceptions.GetTimeoutError:
            raise RunFailedError(
                f"No node of the cluster told what the cells are within {START_TIMEOUT_S:.0f} s.",
                "See with `ray status` whether its nodes are busy or gone.",
            ) from None
        except self.ray.exceptions.RayError as error:
            raise RunFailedError(
                f"A worker of the cluster cannot tell what the cells are: {_line(error)}.",
                "Install the same layerprof on every node; `ray logs` shows what the worker said.",
            ) from None
        return [self._identity(answer) for answer in answers]

    def _identity(self, answer: dict[str, Any]) -> Identity | Refusal:
        if error := answer.get("error"):
            return Refusal(Status(error["status"]), error["reason"], error["remedy"])
        who = Identity.model_validate(answer["ok"])
        gpus = _gpus(who.choices)
        if not self._places(gpus):
            return Refusal(Status.SKIPPED, f"no node of the cluster has {_words(gpus)}", "Add such a node.")
        return who

    def _places(self, gpus: float) -> int:
        """Return how many cells that need so many GPUs can run at once: one on each measuring node that has them."""
        count = 0
        for node in self.ray.nodes():
            there = node["Resources"] if node["Alive"] else {}
            if there.get("GPU", 0) >= gpus and there.get("CPU", 0) >= 1:
                count += int(there.get(MEASURE, 0))
        return count

    def _refuse_if_infeasible(self, gpus: float) -> None:
        """Raise RequestError for what would wait forever: Ray itself only keeps it pending."""
        if self._places(gpus):
            return
        there = {name: value for name, value in self.ray.cluster_resources().items() if not name.startswith("node:")}
        shown = ", ".join(
            f"{name} {value:g}" for name, value in sorted(there.items()) if name in ("CPU", "GPU", MEASURE)
        )
        raise RequestError(
            f"No node of the Ray cluster has {_words(gpus)}; there is: {shown or 'nothing'}.",
            "Start nodes with `ray start ... --resources '{\"measure\": 1}'` (docs/cluster.md).",
        )

    # --- carrying out -------------------------------------------------------------------------------------------

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> Iterator[tuple[Job, Outcome]]:
        """Submit all cells; yield each as it ends. Cells that still run when this is closed are stopped."""
        flights = [self._submit(job) for job in jobs]
        try:
            while flights:
                for flight in list(flights):
                    ended = self._step(flight, watcher)
                    if ended is None:
                        continue
                    if ended.status is Status.CRASHED and flight.attempt < ATTEMPTS:
                        again = self._submit(flight.job)
                        again.attempt = flight.attempt + 1
                        flights[flights.index(flight)] = again
                        continue
                    flights.remove(flight)
                    yield flight.job, ended
                time.sleep(0 if not flights else POLL_S / 5)
        finally:
            for flight in flights:
                self._cancel(flight)

    def _submit(self, job: Job) -> Flight:
        gpus = _gpus(job.identity.choices)
        running = self._task(task.run, gpus, CELLS_OPTIONS)
        request = {"do": "run", "identity": job.identity.model_dump(mode="json"), "repeat": job.repeat}
        return Flight(job, running.remote(self.runner, request, gpus))

    def _task(self, function: Any, gpus: float, options: dict[str, Any]) -> Any:
        resources = {MEASURE: 1}
        return self.ray.remote(num_cpus=1, num_gpus=gpus, resources=resources, **options)(function)

    def _step(self, flight: Flight, watcher: Watcher) -> Outcome | None:
        """Take what a task has yielded; return its outcome when it has ended."""
        ready, _ = self.ray.wait([flight.stream], timeout=POLL_S / 5)
        if not ready:
            return self._late(flight)
        try:
            message = self.ray.get(next(flight.stream))
        except (StopIteration, self.ray.exceptions.RayError) as error:
            return self._died(flight, error)
        if "node" in message:
            flight.since, flight.node = time.monotonic(), message["node"]
            watcher.started(flight.job)
            return None
        return self._finished(flight, message)

    def _died(self, flight: Flight, error: Exception) -> Outcome:
        known = self.ray.exceptions
        if isinstance(error, StopIteration):
            return self._outcome(flight, Status.CRASHED, "the task ended without a result")
        if isinstance(error, known.TaskCancelledError):
            return self._outcome(
                flight, Status.TIMED_OUT, f"stopped after {flight.job.timeout_s:g} s, the cell's limit"
            )
        if isinstance(error, known.OutOfMemoryError):
            return self._outcome(flight, Status.OUT_OF_MEMORY, f"Ray killed the task to save its node: {_line(error)}")
        return self._outcome(flight, Status.CRASHED, _line(error))

    def _finished(self, flight: Flight, message: dict[str, Any]) -> Outcome:
        for name, content in message["files"].items():
            place = flight.job.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        if error := message["answer"].get("error"):
            return self._outcome(flight, Status(error["status"]), error["reason"])
        found = message["answer"]["ok"]
        return self._outcome(flight, Status.DONE, None, Guards.model_validate(found) if found else None)

    def _late(self, flight: Flight) -> Outcome | None:
        if flight.since is None or time.monotonic() - flight.since < flight.job.timeout_s:
            return None
        self._cancel(flight)
        return self._outcome(flight, Status.TIMED_OUT, f"stopped after {flight.job.timeout_s:g} s, the cell's limit")

    def _cancel(self, flight: Flight) -> None:
        """End the task's process: a timeout of `ray.get` alone would leave it running."""
        self.ray.cancel(flight.stream, force=True)

    def _outcome(self, flight: Flight, status: Status, reason: str | None, guards: Guards | None = None) -> Outcome:
        again = f" ({flight.attempt} attempts)" if reason and flight.attempt > 1 else ""
        return Outcome(
            key=flight.job.key,
            status=status,
            reason=f"{reason}{again}" if reason else None,
            repeat=flight.job.repeat,
            identity=flight.job.identity,
            guards=guards,
            seconds=time.monotonic() - (flight.since or flight.submitted),
            attempts=flight.attempt,
            worker=flight.node,
        )


def _environment() -> dict[str, str]:
    """Return what the tasks need of this process's environment: where modules lie, how the hub is asked."""
    names = ("PYTHONPATH", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN", "OMP_NUM_THREADS")
    return {name: text for name, text in os.environ.items() if name in names or name.startswith("LAYERPROF_")}


def _gpus(choices: dict[str, Any]) -> float:
    """Return how many GPUs a cell needs.

    A part of one is never asked for: two cells on a card would disturb each other.
    """
    return 1.0 if str(choices.get("device", "auto")).startswith("cuda") else 0.0


def _words(gpus: float) -> str:
    return f"a CPU and one '{MEASURE}'" + (" and a GPU" if gpus else "")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name == "ray":
            raise RequestError(
                "--engine ray needs the package ray, which is not installed.", "Install it: pip install ray."
            ) from None
        raise _broken(error) from error
    except Exception as error:  # it looks for accelerators while it is imported, by other packages' libraries
        raise _broken(error) from error
    return ray


def _broken(error: Exception) -> RequestError:
    return RequestError(
        f"--engine ray needs the package ray, which cannot be imported ({type(error).__name__}: {_line(error)}).",
        "Make `python -c 'import ray'` work (a package amdsmi without AMD's driver is known to break it: "
        "pip uninstall amdsmi), or use --engine local.",
    )
