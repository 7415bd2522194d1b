"""Joules of the same windows by several meters, and of the same layers in two ways.

    python experiments/peers/energy.py [--device cpu|cuda] [--seconds 10] [--windows 3] [--json FILE]

A window is generate() over and over for `--seconds`; every meter opens and closes around the same loop. On CUDA the
model is the full-size Qwen2.5-VL-3B with random fp16 weights, on a CPU the bundled one. `measured` is a sensor's
figure, `modelled` one from a design power: CodeCarbon models a processor that it cannot read; it stands beside our
estimate there. Per layer, one run replays every kind of layer under the counter and another shares measured phases
by time; a ratio of 1 says that both give that kind the same joules. What cannot be measured is a row that says why.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from layerprof.hooks.energy.meter import EnergyMeter
from rows import machine, save, show
from subject import answer, image_and_question, subject

from layerprof.energy import tdp
from layerprof.energy.amount import joules_of

TOKENS = 32


@dataclass
class Joules:
    """One meter's figure of one window: of the card, of the host, or why there is none."""

    meter: str
    part: str
    joules: float | None
    kind: str
    reason: str = ""


Found = list[Joules]
Meter = Callable[[str], AbstractContextManager[Found]]


def load(device: str) -> tuple[Any, dict[str, Any]]:
    """Return the full-size model on a GPU, the bundled one on a CPU, with inputs of the same kind."""
    if device == "cpu":
        return subject(device)
    from layerprof.models.load import load_model
    from layerprof.models.source import resolve

    source = resolve("qwen2.5-vl-3b", weights="random", device=device, dtype="fp16", optimization="sdpa")
    model = load_model(source).model
    inputs = {name: tensor.to(device) for name, tensor in image_and_question(model.config).items()}
    return model, {**inputs, "pixel_values": inputs["pixel_values"].half()}


@contextmanager
def layerprof(device: str) -> Iterator[Found]:
    """Layerprof's EnergyMeter, and its estimate of the processor from its design power."""
    found: Found = []
    meter = EnergyMeter(device)
    with meter, meter.window("loop"):
        wall, cpu = time.perf_counter(), time.process_time()
        yield found
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    reading = meter.reading()
    for part, windows in (("gpu" if device != "cpu" else "cpu", reading.windows), ("cpu", reading.host)):
        for window in windows:
            found.append(Joules("layerprof", part, joules_of(window.energy), "measured", window.reason or ""))
    processor = machine()["processor"]
    estimate, reason = tdp.estimate(processor, cpu, wall, samples=1)
    joules = None if estimate is None else estimate.joules
    found.append(Joules("layerprof estimate", "cpu", joules, "modelled", reason or ""))


def zeus(device: str) -> AbstractContextManager[Found]:
    """Zeus: the counter at the window's end less the counter at its start."""
    from zeus.monitor import ZeusMonitor

    return _zeus(ZeusMonitor(gpu_indices=[] if device == "cpu" else [torch.cuda.current_device()]), device)


@contextmanager
def _zeus(monitor: Any, device: str) -> Iterator[Found]:
    found: Found = []
    monitor.begin_window("loop", sync_execution=device != "cpu")
    yield found
    read = monitor.end_window("loop", sync_execution=device != "cpu")
    for part, energy in (("gpu", read.gpu_energy), ("cpu", read.cpu_energy)):
        if energy:
            found.append(Joules("Zeus", part, float(sum(energy.values())), "measured"))
        elif part == "cpu" or device != "cpu":
            found.append(Joules("Zeus", part, None, "measured", f"Zeus found no {part} that it can read"))


def codecarbon(device: str) -> AbstractContextManager[Found]:
    """CodeCarbon for this machine, without its network: kWh of the card, and of the processor."""
    from codecarbon import OfflineEmissionsTracker

    quiet = {"save_to_file": False, "log_level": "critical", "allow_multiple_runs": True}
    return _codecarbon(OfflineEmissionsTracker(country_iso_code="USA", measure_power_secs=1, **quiet), device)


@contextmanager
def _codecarbon(tracker: Any, device: str) -> Iterator[Found]:
    found: Found = []
    tracker.start()
    yield found
    tracker.stop()
    data = tracker.final_emissions_data
    hardware = {type(one).__name__: one for one in tracker._hardware}
    mode = getattr(hardware.get("CPU"), "_mode", "unknown")
    sensor = mode in ("intel_power_gadget", "intel_rapl")
    if device != "cpu":
        found.append(Joules("CodeCarbon", "gpu", 3.6e6 * data.gpu_energy, "measured"))
    watts = getattr(hardware.get("CPU"), "_tdp", None)
    how = "" if sensor else f"from a design power of {watts} W ({mode})"
    found.append(Joules("CodeCarbon", "cpu", 3.6e6 * data.cpu_energy, "measured" if sensor else "modelled", how))


METERS: dict[str, Meter] = {"layerprof": layerprof, "Zeus": zeus, "CodeCarbon": codecarbon}


def one_window(work: Callable[[], Any], device: str, seconds: float) -> tuple[float, Found]:
    """Repeat the work under all meters at once; return the window's seconds and what each found."""
    ready: dict[str, AbstractContextManager[Found]] = {}
    opened, failed = [], []
    # All are made ready before the first opens: looking for hardware takes seconds, which belong to no window.
    for name, meter in METERS.items():
        try:
            ready[name] = meter(device)
        except Exception as error:  # a meter that cannot start is a row that says so
            failed.append(Joules(name, "all", None, "", f"{type(error).__name__}: {error}".splitlines()[0][:90]))
    with ExitStack() as stack:
        for window in ready.values():
            opened.append(stack.enter_context(window))
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            work()
        wall = time.perf_counter() - start
    return wall, [joules for found in opened for joules in found] + failed


def end_to_end(device: str, seconds: float, windows: int) -> list[tuple[float, Found]]:
    """Return every window."""
    model, inputs = load(device)
    with torch.no_grad():
        answer(model, inputs, TOKENS)
        return [one_window(lambda: answer(model, inputs, TOKENS), device, seconds) for _ in range(windows)]


def end_to_end_rows(measured: list[tuple[float, Found]]) -> list[list[str]]:
    """Return each meter's median power, spread over windows, and ratio to layerprof's of the same part and kind."""
    watts: dict[tuple[str, str, str], list[float]] = {}
    reasons: dict[tuple[str, str, str], str] = {}
    for wall, found in measured:
        for one in found:
            key = (one.meter, one.part, one.kind)
            watts.setdefault(key, []).extend([] if one.joules is None else [one.joules / wall])
            reasons[key] = one.reason
    ours = {key[1:]: statistics.median(values) for key, values in watts.items() if "layerprof" in key[0] and values}
    rows = []
    for key, values in watts.items():
        if not values:
            rows.append([*key, "none", "", "", reasons[key]])
            continue
        middle = statistics.median(values)
        beside = f"{middle / ours[key[1:]]:.3f}" if key[1:] in ours else ""
        rows.append([*key, f"{middle:.1f} W", f"{max(values) / min(values) - 1:.1%}", beside, reasons[key]])
    return rows


def by_kind(mode: str) -> dict[str, tuple[float | None, str]]:
    """Return joules of each kind of layer and phase in one profile of the 3B, with the reason where there are none."""
    import layerprof as product

    with tempfile.TemporaryDirectory() as folder:
        run = product.profile(
            model="qwen2.5-vl-3b",
            weights="random",
            source="bundled",
            dtype="fp16",
            device="cuda",
            samples=4,
            max_new_tokens=TOKENS,
            fixed_tokens=True,
            trace=False,
            energy=mode,
            output=f"{folder}/run",
        )
    sums: dict[str, tuple[float | None, str]] = {}
    for row in run.layers:
        key = f"{row.kind}, {row.phase}"
        before, _ = sums.get(key, (0.0, ""))
        known = before is not None and row.energy_j is not None
        sums[key] = (before + row.energy_j if known else None, row.energy_reason or "")
    return sums


def per_layer(device: str) -> tuple[list[list[str]], str]:
    """Return rows of replayed and shared joules, or why there are none."""
    if device == "cpu":
        meter = EnergyMeter(device)
        with meter:
            pass
        return [], meter.reason or "per-layer joules are compared on the full-size model, which is for a GPU"
    try:
        replayed, shared = by_kind("replay"), by_kind("attributed")
    except Exception as error:
        return [], f"{type(error).__name__}: {error}".splitlines()[0]
    rows = []
    for kind, (joules, reason) in replayed.items():
        other, why = shared.get(kind, (None, "not in the other run"))
        if joules is None or not other:
            rows.append([kind, _joules(joules), _joules(other), "none", reason or why])
        else:
            rows.append([kind, _joules(joules), _joules(other), f"{joules / other:.3f}", ""])
    return rows, ""


def _joules(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f} J"


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    where = machine("layerprof", "zeus", "codecarbon", "torch", "transformers", "nvidia-ml-py")
    windows = end_to_end(options.device, options.seconds, options.windows)
    header = ["meter", "part", "kind", "median power", "spread", "to layerprof's", "why"]
    rows = end_to_end_rows(windows)
    show("energy", f"Power over {options.windows} windows of {options.seconds:g} s", header, rows, where)
    layers, reason = per_layer(options.device)
    columns = ["layers, phase", "replayed", "shared by time", "ratio", "why"]
    layers = layers or [["all", "none", "none", "none", reason]]
    show("energy-layers", "Joules by kind of layer", columns, layers, where)
    figures = [{"wall_s": wall, "found": [vars(one) for one in found]} for wall, found in windows]
    save(options.json, {"machine": where, "settings": {**vars(options), "json": None}, "windows": figures})


if __name__ == "__main__":
    main()
