"""What this machine can measure, and how well. Never a traceback: a check that breaks is a finding.

The verdict of a quantity is drawn from the findings, so that the answer and its evidence cannot disagree.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from layerprof import registry
from layerprof.energy.instruments import NVML, RAPL, SELF_TEST
from layerprof.machine import environment
from layerprof.trace import probe

State = Literal["yes", "partly", "no", "unknown", "info"]

PACKAGES = (
    "layerprof",
    "torch",
    "torchvision",
    "transformers",
    "qwen-vl-utils",
    "datasets",
    "jiwer",
    "nvidia-ml-py",
    "tensorboard",
    "torch-tb-profiler",
    "fvcore",
    "ptflops",
    "numpy",
    "scipy",
)
OPTIONAL = {
    "flash-attn": "--optimization flash",
    "ray": "sweep --engine ray",
}
HUB_TIMEOUT_S = 3.0
MODEL_BYTES = 8e9
"""Room that Qwen2.5-VL-3B takes on disk and on a card in half precision."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `detail` says what was found, `remedy` what would change it."""

    group: str
    name: str
    state: State
    detail: str
    remedy: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether one quantity can be measured here, and how well."""

    quantity: str
    state: State
    how: str


@dataclass(frozen=True, slots=True)
class Examination:
    """The answers, and the findings they are drawn from."""

    answers: tuple[Answer, ...]
    findings: tuple[Finding, ...]


def examine(self_test: bool = True) -> Examination:
    """Look at devices, energy counters, profiler, network, plugins, packages and disk.

    `self_test` runs the square wave on each GPU (about 9 s a card). The profiler is probed on the first (about 10 s),
    after the counters: it stays attached to the process.
    """
    hub = _Hub()
    hub.start()
    findings = [
        *_guarded("device", "CUDA", _devices),
        *_guarded("energy", "host", _host_energy),
        *_guarded("energy", "card", lambda: _card_energy(self_test)),
        *_guarded("profiler", "activities", _profiler),
        *_guarded("software", "packages", _packages),
        *_guarded("software", "TensorBoard plugins", _plugins),
        *_guarded("machine", "disk", _disk),
        *_guarded("machine", "memory", _memory),
        *_guarded("network", "hub", hub.findings),
    ]
    return Examination(_answers(findings), tuple(findings))


def to_json(result: Examination) -> str:
    """Return the examination as JSON: `{"answers": [...], "findings": [...]}`."""
    return json.dumps(asdict(result), indent=2, default=str)


def _guarded(group: str, name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:
        # A doctor that dies of the illness helps nobody: whatever a driver throws is told as it stands.
        text = f"the check itself failed: {type(error).__name__}: {error}".strip()
        return [Finding(group, name, "unknown", text)]


# --- devices ------------------------------------------------------------------------------------------------------


def _devices() -> list[Finding]:
    import torch

    cpu = Finding(
        "device",
        "cpu",
        "yes",
        f"{environment.cpu_name()}, {os.cpu_count()} threads, torch uses {torch.get_num_threads()}",
        facts={"python": sys.version.split()[0], "platform": platform.platform()},
    )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return [cpu, Finding("device", "CUDA", "no", *_why_no_cuda())]
    return [cpu, *(_card(index) for index in range(count))]


def _card(index: int) -> Finding:
    import torch

    card = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    large = free > MODEL_BYTES
    return Finding(
        "device",
        f"cuda:{index}",
        "yes" if large else "partly",
        f"{card.name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, {card.multi_processor_count} SMs",
        None if large else "Qwen2.5-VL-3B needs about 8 GB: close other programs, or take --model demo",
        {
            "uuid": str(getattr(card, "uuid", "")),
            "capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
        },
    )


def _why_no_cuda() -> tuple[str, str]:
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA", "install the ordinary torch from the package index"
    if not Path("/dev/nvidiactl").exists() and not shutil.which("nvidia-smi"):
        return (
            "no NVIDIA driver is on this machine",
            "on a GPU machine, install the driver or start the container with --gpus all",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides the cards", "unset CUDA_VISIBLE_DEVICES"
    return (
        f"the driver is there but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it",
        "run nvidia-smi: a driver older than this CUDA needs an update, or a torch for an older CUDA",
    )


# --- energy -------------------------------------------------------------------------------------------------------


def _host_energy() -> list[Finding]:
    sensor = registry.load(RAPL)()
    try:
        if sensor.available:
            facts = {"source": sensor.source, "scope": sensor.scope}
            return [Finding("energy", "host", "yes", f"{sensor.source}: {sensor.scope}", facts=facts)]
        return [Finding("energy", "host", "no", sensor.problem, sensor.remedy)]
    finally:
        sensor.close()


def _card_energy(self_test: bool) -> list[Finding]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [f"cuda:{index}" for index in range(count)]
    return [found for name in names for found in _guarded("energy", name, partial(_counter, name, self_test))]


def _counter(device: str, self_test: bool) -> list[Finding]:
    sensor = registry.load(NVML)(device, power=True)
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


def _clocks(device: str, state: Any) -> Finding:
    held = ", ".join(state.throttle)
    text = f"SM {state.sm_clock_mhz} MHz, memory {state.memory_clock_mhz} MHz, {state.temperature_c} °C"
    text += f", limit {state.power_limit_w} W" + (f", held back by {held}" if held else "")
    remedy = "let it cool or raise the limit; windows measured meanwhile are flagged" if held else None
    return Finding("energy", f"{device} clocks", "partly" if held else "yes", text, remedy)


def _square_wave(device: str, sensor: Any) -> Finding:
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


# --- profiler, software, machine ----------------------------------------------------------------------------------


def _profiler() -> list[Finding]:
    import torch
    from torch.profiler import kineto_available

    if not kineto_available() or not torch.cuda.is_available():
        text = "no CUDA activities: busy time is that of CPU operators"
        return [Finding("profiler", "CUPTI", "partly", text, "kernels need an NVIDIA GPU and a CUDA build of torch")]
    found = registry.load(probe.PROBE)("cuda:0")
    state: State = "yes" if found.trusted else "partly" if found.seen else "no"
    return [Finding("profiler", "CUPTI", state, probe.told(found), _profiler_remedy(found), found.facts())]


def _profiler_remedy(found: probe.Probe) -> str | None:
    if not found.seen:
        return "another profiler (nsys, ncu, DCGM) may hold CUPTI: stop it; in a container match the driver's CUDA"
    if not found.trusted:
        return (
            "busy times are too small by what was lost, which every run counts and names; try another torch or driver"
        )
    if probe.slower(found):
        return "runs trace last for that reason; take times and joules in a process that has recorded nothing"
    return None


def _packages() -> list[Finding]:
    versions = {name: environment.package_version(name) for name in PACKAGES}
    missing = [name for name, found in versions.items() if found is None]
    text = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    remedy = f"pip install {' '.join(missing)}" if missing else None
    found = [Finding("software", "packages", "partly" if missing else "yes", text, remedy, versions)]
    for name, use in OPTIONAL.items():
        have = environment.package_version(name)
        text = have or f"not installed; only for {use} (pip install {name})"
        found.append(Finding("software", name, "yes" if have else "info", text))
    return found


def _plugins() -> list[Finding]:
    names = sorted(point.name for point in entry_points(group="tensorboard_plugins"))
    if "torch_profiler" in names:
        return [Finding("software", "TensorBoard plugins", "yes", ", ".join(names))]
    text = f"the profiler's tab is missing (found: {', '.join(names) or 'none'})"
    return [Finding("software", "TensorBoard plugins", "partly", text, "pip install torch-tb-profiler")]


def _disk() -> list[Finding]:
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    while not cache.exists():
        cache = cache.parent
    here, there = shutil.disk_usage(Path.cwd()).free, shutil.disk_usage(cache).free
    enough = there > MODEL_BYTES
    text = f"{here / 1e9:.1f} GB free here, {there / 1e9:.1f} GB where models are kept ({cache})"
    remedy = None if enough else "Qwen2.5-VL-3B takes 8 GB: set HF_HOME to a larger disk"
    return [Finding("machine", "disk", "yes" if enough else "partly", text, remedy, {"here": here, "cache": there})]


def _memory() -> list[Finding]:
    total, free = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    page = os.sysconf("SC_PAGE_SIZE")
    text = f"{free * page / 1e9:.1f} of {total * page / 1e9:.1f} GB free"
    return [Finding("machine", "memory", "info", text, facts={"total": total * page, "free": free * page})]


class _Hub(threading.Thread):
    """Asks the Hugging Face hub for a sign of life, beside the slow imports; a name server may hang for minutes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.url = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        self.offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        self.answer: str | None = None
        self.problem: str | None = None

    def run(self) -> None:
        """Ask, unless told to stay offline."""
        if self.offline:
            return
        try:
            request = urllib.request.Request(f"{self.url}/api/models?limit=1", method="HEAD")
            with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S) as reply:
                self.answer = f"{self.url} answers ({reply.status})"
        except urllib.error.HTTPError as error:
            self.problem = f"{self.url} refused with status {error.code}"
        except (OSError, ValueError) as error:
            self.problem = f"{self.url} cannot be reached ({getattr(error, 'reason', error)})"

    def findings(self) -> list[Finding]:
        """Return what came of it."""
        self.join(timeout=HUB_TIMEOUT_S)
        if self.answer:
            return [Finding("network", "hub", "yes", self.answer)]
        remedy = "offline is fine: --model demo, --source bundled, --source FOLDER, --model FOLDER or --weights random"
        if self.offline:
            return [Finding("network", "hub", "no", "HF_HUB_OFFLINE is set", f"unset it to download; {remedy}")]
        text = self.problem or f"{self.url} did not answer in {HUB_TIMEOUT_S:g} s"
        return [Finding("network", "hub", "no", f"offline: {text}", remedy)]


# --- answers ------------------------------------------------------------------------------------------------------


def _answers(findings: list[Finding]) -> tuple[Answer, ...]:
    cards = [f for f in findings if f.group == "device" and f.name.startswith("cuda:")]
    counters = [f for f in findings if f.group == "energy" and f.name in {c.name for c in cards}]
    host = next((f for f in findings if (f.group, f.name) == ("energy", "host")), None)
    hub = next((f for f in findings if f.group == "network"), None)
    cupti = next((f for f in findings if f.name == "CUPTI"), None)
    return (
        Answer("FLOPs and bytes", "yes", "from shapes, on any device"),
        Answer("latency per layer", "yes", "CUDA events" if cards else "host clock"),
        Answer(
            "kernels per layer", cupti.state if cupti else "unknown", cupti.detail if cupti else "the profiler failed"
        ),
        _energy_answer("energy of the device", counters if cards else [host] if host else []),
        _energy_answer("energy per layer", counters if cards else [host] if host else [], per_layer=True),
        _same("energy of the host", host),
        _same("hub models and data", hub),
    )


def _same(quantity: str, finding: Finding | None) -> Answer:
    if finding is None:
        return Answer(quantity, "unknown", "the check itself failed")
    return Answer(quantity, finding.state, finding.detail if finding.state == "yes" else f"see {finding.name} below")


def _energy_answer(quantity: str, counters: list[Finding], per_layer: bool = False) -> Answer:
    working = [f for f in counters if f.state == "yes"]
    if not working:
        return Answer(quantity, "no", "no counter; an estimate stands in its own column (see --assume-watts)")
    if per_layer:
        how = "attributed by span (default), replayed with intervals (--energy replay)"
        return Answer(quantity, "yes", how)
    return Answer(quantity, "yes", working[0].detail)
