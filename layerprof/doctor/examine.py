"""What this machine can measure, and how well. Never a traceback: a check that breaks is a finding."""

from __future__ import annotations

import json
from dataclasses import asdict

from layerprof.doctor import energy, room, software
from layerprof.doctor.answers import answers
from layerprof.doctor.devices import devices
from layerprof.doctor.findings import Examination, guarded
from layerprof.doctor.network import Hub
from layerprof.doctor.profiler import profiler


def examine(self_test: bool = True) -> Examination:
    """Look at devices, energy counters, profiler, network, plugins, packages and disk.

    `self_test` runs the square wave on each GPU (about 9 s a card). The profiler is probed on the first (about 10 s),
    after the counters: it stays attached to the process.
    """
    hub = Hub()
    hub.start()
    findings = [
        *guarded("device", "CUDA", devices),
        *guarded("energy", "host", energy.host),
        *guarded("energy", "card", lambda: energy.cards(self_test)),
        *guarded("energy", "zeus", energy.zeus),
        *guarded("profiler", "activities", profiler),
        *guarded("software", "packages", software.packages),
        *guarded("software", "TensorBoard plugins", software.plugins),
        *guarded("machine", "disk", room.disk),
        *guarded("machine", "memory", room.memory),
        *guarded("network", "hub", hub.findings),
    ]
    return Examination(answers(findings), tuple(findings))


def to_json(result: Examination) -> str:
    """Return the examination as JSON: `{"answers": [...], "findings": [...]}`."""
    return json.dumps(asdict(result), indent=2, default=str)
