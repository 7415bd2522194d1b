"""Which energy counters there are, and whether each card's can be believed."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from layerprof import registry
from layerprof.doctor.findings import Finding, guarded
from layerprof.energy.instruments import AMDSMI, NVML, RAPL, SELF_TEST, ZEUS, Sensor
from layerprof.energy.sensor_record import State
from layerprof.machine.environment import package_version


def host() -> list[Finding]:
    """Look for a counter of the processor."""
    sensor = registry.load(RAPL)()
    try:
        if sensor.available:
            facts = {"source": sensor.source, "scope": sensor.scope}
            return [Finding("energy", "host", "yes", f"{sensor.source}: {sensor.scope}", facts=facts)]
        return [Finding("energy", "host", "no", sensor.problem, sensor.remedy)]
    finally:
        sensor.close()


def cards(self_test: bool) -> list[Finding]:
    """Look at the counter of each card, its clocks and who shares it; `self_test` runs the square wave."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [f"cuda:{index}" for index in range(count)]
    return [found for name in names for found in guarded("energy", name, partial(_counter, name, self_test))]


def zeus() -> list[Finding]:
    """Look at what Zeus reads of the first card, or without one of this machine: `--energy-sensor zeus`."""
    import torch

    if package_version("zeus") is None:
        text = "not installed; it reads Jetson and Apple chips, too (--energy-sensor zeus)"
        return [Finding("energy", "zeus", "info", text, "pip install 'layerprof[zeus]'")]
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    sensor = registry.load(ZEUS)(device)
    try:
        if not sensor.available:
            return [Finding("energy", "zeus", "no", sensor.problem, sensor.remedy)]
        text = f"{sensor.source} of {sensor.name}, scope {sensor.scope}, with --energy-sensor zeus"
        return [Finding("energy", "zeus", "yes", text, None, sensor.facts())]
    finally:
        sensor.close()


def _counter(device: str, self_test: bool) -> list[Finding]:
    import torch

    sensor = registry.load(AMDSMI if torch.version.hip else NVML)(device, power=True)
    if not sensor.available:
        return [Finding("energy", device, "no", sensor.problem, sensor.remedy)]
    try:
        state, others = sensor.state(), sensor.foreign_processes()
        facts = {**sensor.facts(), "state": asdict(state), "foreign_processes": list(others)}
        text = f"{sensor.source} of {sensor.name}, scope {sensor.scope}"
        found = [Finding("energy", device, "yes", text, None, facts), _clocks(device, state)]
        if others:
            text = f"{len(others)} other process(es) on the card: {', '.join(map(str, others))}"
            remedy = "their joules would be in every figure: wait for them, or take another card"
            found.append(Finding("energy", f"{device} sharing", "partly", text, remedy))
        if self_test:
            found.append(_square_wave(device, sensor))
        return found
    finally:
        sensor.close()


def _clocks(device: str, state: State) -> Finding:
    held = ", ".join(state.throttle)
    text = f"SM {state.sm_clock_mhz} MHz, memory {state.memory_clock_mhz} MHz, {state.temperature_c} °C"
    text += f", limit {state.power_limit_w} W" + (f", held back by {held}" if held else "")
    remedy = "let it cool or raise the limit; windows measured meanwhile are flagged" if held else None
    return Finding("energy", f"{device} clocks", "partly" if held else "yes", text, remedy)


def _square_wave(device: str, sensor: Sensor) -> Finding:
    test = registry.load(SELF_TEST)(device, sensor)
    good = test.verdict == "good"

    def told(value: float | None, scale: float, unit: str) -> str:
        return "?" if value is None else f"{value * scale:.3g} {unit}"

    text = (
        f"updates every {told(test.period_s, 1e3, 'ms')}, lags {told(test.lag_s, 1e3, 'ms')}, "
        f"idle {told(test.idle_w, 1, 'W')}, load {told(test.load_w, 1, 'W')}, "
        f"counter / integrated power {told(test.gain, 1, '')}, one read {told(test.read_s, 1e3, 'ms')}: {test.verdict}"
    )
    remedy = None if good else "make sure that nothing else uses the card, and run doctor again"
    return Finding("energy", f"{device} square wave", "yes" if good else "partly", text, remedy, test.facts())
