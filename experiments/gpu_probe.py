"""Whether traces can be trusted here: lost launches by session of the profiler, and what a session leaves behind.

    python experiments/gpu_probe.py [--device cuda:0|cpu] [--tokens 16] [--idle 2.5] [--json FILE]
    TEARDOWN_CUPTI=1 python experiments/gpu_probe.py          # the same with CUPTI taken away after each session

The bundled model answers one prompt in every session: three as torch.profiler is used by itself, then two as
layerprof records. A launch is lost when it has no record of what it ran. About 40 s on a GPU, loading included.
`layerprof doctor` takes the same probe on shorter work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import torch
from layerprof.hooks.probe import SESSIONS, probe
from rows import machine, save, show
from subject import answer, subject

from layerprof.errors import LayerprofError
from layerprof.machine import placement
from layerprof.trace.probe import Probe, ProbeSession, told

HEADER = ("session", "opened as", "launches", "LOST", "orphans", "lost ahead of it", "work after it", "against before")


def rows(found: Probe) -> Iterator[Sequence[str]]:
    """Yield the times before, then a row for each session."""
    before, again = found.bare_s
    yield "before", "", "", "", "", "", f"{1e3 * before:.2f} ms", ""
    yield "before, again", "", "", "", "", "", f"{1e3 * again:.2f} ms", f"{100 * (again / before - 1):+.1f} %"
    middle = (before + again) / 2
    for number, one in enumerate(found.sessions, start=1):
        opened = "layerprof's" if one.ours else "torch's"
        counts = (str(count) for count in (one.launches, one.lost, one.orphans, one.warm_up_lost))
        yield str(number), opened, *counts, f"{1e3 * one.after_s:.2f} ms", f"{100 * (one.after_s / middle - 1):+.1f} %"


def main() -> int:
    """Probe, print, save; the exit status is 1 where layerprof's own sessions are not whole on a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--idle", type=float, default=2.5, help="seconds of rest before each session")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.tokens < 1 or options.idle < 0:
        parser.error("--tokens takes 1 or more, --idle no less than 0")
    try:
        options.device = placement.device(options.device)
    except LayerprofError as error:
        parser.error(f"{error.problem} {error.remedy}")
    model, inputs = subject(options.device)

    def work() -> None:
        answer(model, inputs, options.tokens)

    def ended(one: ProbeSession) -> None:
        print(f"a session ended: {one}", flush=True)

    found = probe(options.device, work, sessions=SESSIONS, idle_s=options.idle, ended=ended)
    where = machine("torch", "transformers", "layerprof")
    setting = f"TEARDOWN_CUPTI={found.teardown}" if found.teardown else "TEARDOWN_CUPTI not set"
    show("probe", f"Sessions of torch.profiler on {options.device}, {setting}", HEADER, list(rows(found)), where)
    on_gpu = options.device != "cpu"
    print(told(found) if on_gpu else "On a CPU nothing is launched: this only shows that the probe runs.")
    save(options.json, {"machine": where, "settings": {**vars(options), "json": None}, "probe": found.facts()})
    return int(on_gpu and not found.trusted)


if __name__ == "__main__":
    sys.exit(main())
