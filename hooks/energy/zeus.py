"""Whatever Zeus (ml-energy/zeus, 0.16 and later) can read: NVIDIA and AMD cards, processors, Jetson and Apple chips.

Only its devices are used (`zeus.device`), with our own reading of windows. What is behind each is told by the label:

- `zeus_nvml`, `zeus_amdsmi`: the card's counter, `GPU.get_total_energy_consumption`. Where it has none, its power is
  integrated over the reads (`..._power_integral`), as Zeus itself does in a process of its own.
- `zeus_rapl`: the packages and their DRAM, `CPU.get_total_energy_consumption`.
- `zeus_soc`: Apple's counters of processor, graphics and memory. On a Jetson there is no counter: Zeus looks at the
  power of the INA3221 every 0.1 s and adds it up (`zeus_soc_power_integral`).

An NVIDIA card is found by its UUID, an AMD card by the index of HIP, which is how Zeus counts those.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

from layerprof.hooks.energy.absent import AbsentSensor, NoSensorError
from layerprof.hooks.energy.integral import PowerIntegral

from layerprof.energy.counter import CounterRead, Unwrapper
from layerprof.energy.fit import LAG_MAX_S
from layerprof.energy.instruments import Sensor
from layerprof.energy.sensor_record import State

SOC_UPDATE_S = 0.1
"""How often Zeus looks at a Jetson's power."""
PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "dram_mj", "ane_mj", "cpu_energy_mj", "gpu_energy_mj")
"""Parts of a chip that are added up where it states no total: Apple's, then a Jetson's."""
READABLE = {
    "cards": "look whether nvidia-smi or amd-smi lists the card",
    "systems on a chip": "leave --energy-sensor out, where this is neither a Jetson nor an Apple chip",
    "processors": "run as root, or let the administrator grant it (chmod -R a+r /sys/class/powercap/intel-rapl:*)",
}
"""What makes a kind of device readable."""

Millijoules = Callable[[], float | None]


def load_zeus() -> Any:
    """Import Zeus' devices. Raises NoSensorError."""
    try:
        # The amdsmi that comes with it prints where AMD's driver is missing.
        with contextlib.redirect_stdout(io.StringIO()):
            from zeus import device
    except ImportError as error:
        raise NoSensorError("zeus is not installed", "pip install zeus") from error
    except Exception as error:
        raise NoSensorError(
            f"zeus cannot be imported ({type(error).__name__}: {error})",
            "pip install --upgrade zeus; where amdsmi is named and there is no AMD card, pip uninstall amdsmi",
        ) from error
    return device


class ZeusSensor:
    """One device as Zeus reads it.

    `millijoules` reads its counter, or `power` its milliwatts, which are integrated; each gives None for a failed read.
    """

    def __init__(
        self,
        name: str,
        source: str,
        scope: str,
        *,
        millijoules: Millijoules | None = None,
        power: Millijoules | None = None,
        update_s: float | None = None,
        lag_s: float = LAG_MAX_S,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name, self.source, self.scope = name, source, scope
        self._millijoules, self._power, self._now = millijoules, power, now
        self._integral = PowerIntegral()
        self._unwrapper = Unwrapper()
        self.available = True
        self.reason: str | None = None
        self.problem = ""
        self.remedy: str | None = None
        self.update_s = update_s
        self.duty = 1.0
        self.lag_s = lag_s

    def read(self) -> CounterRead:
        """Read joules, and watts where the device states them; the time is the middle of the call."""
        before = self._now()
        milliwatts = _tried(self._power) if self._power else None
        power = None if milliwatts is None else milliwatts / 1000
        if self._millijoules is not None:
            counted = _tried(self._millijoules)
            raw = None if counted is None else counted / 1000
        else:
            raw = self._integral.add(before, power)
        t_s = (before + self._now()) / 2
        step = self._unwrapper.feed(t_s, raw)
        return CounterRead(t_s, step.joules, power, step.event)

    def foreign_processes(self) -> tuple[int, ...]:
        """Return nobody: Zeus does not tell who is on a device."""
        return ()

    def state(self) -> State:
        """Return an empty state: Zeus tells of no clocks or throttling."""
        return State(self._now())

    def facts(self) -> dict[str, Any]:
        """Return the package's version beside what the sensor is."""
        from layerprof.machine.environment import package_version

        return {"name": self.name, "zeus": package_version("zeus"), "scope": self.scope, "duty": self.duty}

    def close(self) -> None:
        """Read no more; Zeus' handles are the process's, and stay."""
        self.available, self.reason = False, "the sensor was closed before it was read"


def _tried(read: Millijoules) -> float | None:
    try:
        return read()
    except Exception:  # a vendor's error in Zeus' clothes, of a hierarchy for each kind of device
        return None


def card(device: str, zeus: Any, *, power: bool = False) -> ZeusSensor:
    """Return the sensor of a card. Raises NoSensorError where Zeus reads none there."""
    gpus = _asked("cards", zeus.get_gpus)
    amd = type(gpus).__name__.startswith("AMD")
    found = _card_of(device, list(gpus.gpus), amd=amd)
    name = str(_tried(found.get_name) or "a card")
    counts = bool(_tried(found.supports_get_total_energy_consumption))
    if counts and _tried(found.get_total_energy_consumption) is not None:
        watts = found.get_instant_power_usage if power else None
        return ZeusSensor(
            name,
            "zeus_amdsmi" if amd else "zeus_nvml",
            "board",
            millijoules=found.get_total_energy_consumption,
            power=watts,
        )
    source = "zeus_amdsmi_power_integral" if amd else "zeus_nvml_power_integral"
    for read in (found.get_instant_power_usage, found.get_average_power_usage):
        if _tried(read) is not None:
            return ZeusSensor(name, source, "board", power=read)
    raise NoSensorError(
        f"zeus reads neither energy nor power of {name}", "measure on another card, or use --energy-sensor auto"
    )


def _card_of(device: str, gpus: Sequence[Any], *, amd: bool) -> Any:
    import torch

    index = torch.device(device).index or 0
    if amd:
        if index < len(gpus):
            return gpus[index]
        raise NoSensorError(f"zeus sees {len(gpus)} cards, and none is {device}", "look at HIP_VISIBLE_DEVICES")
    wanted = f"GPU-{str(torch.cuda.get_device_properties(index).uuid).removeprefix('GPU-')}"
    found = next((gpu for gpu in gpus if _uuid(gpu) == wanted), None)
    if found is None:
        raise NoSensorError(
            "zeus does not know the card that torch uses", "leave CUDA_VISIBLE_DEVICES out, or name cards by numbers"
        )
    return found


def _uuid(gpu: Any) -> str | None:
    try:
        import pynvml  # type: ignore[import-untyped]  # nvidia-ml-py ships no types

        told = pynvml.nvmlDeviceGetUUID(gpu.handle)
    except Exception:  # as in `_tried`
        return None
    return told.decode() if isinstance(told, bytes) else str(told)


def chip(zeus: Any) -> ZeusSensor:
    """Return the sensor of a Jetson or of Apple's chip, both of which hold processor and graphics.

    Raises NoSensorError on other machines.
    """
    soc = _asked("systems on a chip", zeus.get_soc)
    kind = type(soc).__name__

    def total() -> float | None:
        return _sum(soc.get_total_energy_consumption())

    if _tried(total) is None:
        raise NoSensorError(f"zeus reads no energy of this {kind}", "look whether its power rails can be read")
    polled = kind == "Jetson"
    source = "zeus_soc_power_integral" if polled else "zeus_soc"
    scope = "chip, power looked at every 0.1 s" if polled else "chip"
    update_s = SOC_UPDATE_S if polled else None
    return ZeusSensor(kind, source, scope, millijoules=total, update_s=update_s)


def _sum(told: Any) -> float | None:
    """Return a chip's millijoules: its total where it states one, else its parts together."""
    total = getattr(told, "total_energy_mj", None)
    if total is not None:
        return float(total)
    parts = [float(part) for name in PARTS if (part := getattr(told, name, None)) is not None]
    return sum(parts) if parts else None


def processor(zeus: Any) -> ZeusSensor:
    """Return the sensor of the processor's packages and their DRAM. Raises NoSensorError where Zeus reads none."""
    cpus = list(_asked("processors", zeus.get_cpus).cpus)

    def total() -> float | None:
        told = [cpu.get_total_energy_consumption() for cpu in cpus]
        return float(sum(one.cpu_mj + (one.dram_mj or 0.0) for one in told)) if told else None

    if _tried(total) is None:
        raise NoSensorError("zeus reads no processor's counter here", READABLE["processors"])
    return ZeusSensor("the processor", "zeus_rapl", "package + dram", millijoules=total, lag_s=0.0)


def _asked(what: str, get: Callable[[], Any]) -> Any:
    try:
        return get()
    except Exception as error:  # Zeus has a hierarchy of errors for each kind of device
        told = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise NoSensorError(f"zeus found no {what}: {told}", READABLE[what]) from error


def find_zeus(device: str = "cuda:0", *, power: bool = False) -> Sensor:
    """Return the sensor of a torch device, or the absent one with all that was tried. Never raises.

    A card, else the chip that it is a part of; on a CPU the chip, else the processor.
    """
    try:
        zeus = load_zeus()
    except NoSensorError as error:
        return AbsentSensor(device, f"no energy counter for {device}: {error.problem}", error.remedy)
    ways: list[Callable[[], ZeusSensor]] = [lambda: chip(zeus)]
    if device.startswith("cuda"):
        ways.insert(0, lambda: card(device, zeus, power=power))
    else:
        ways.append(lambda: processor(zeus))
    refusals = []
    for way in ways:
        try:
            return way()
        except NoSensorError as error:
            refusals.append(error)
    problem = "; ".join(error.problem for error in refusals)
    remedies = dict.fromkeys(error.remedy for error in refusals)
    return AbsentSensor(device, f"no energy counter for {device}: {problem}", "; or ".join(remedies))
