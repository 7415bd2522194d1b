"""The bundled model on a card that is not there: each layer draws a known power for a known time of a virtual clock.

Everything else is the product's own: passes, meter, windows, capture, replay, books, reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from fake_counter import FakeClock, FakeCounter, Machine
from layerprof.hooks.energy.absent import AbsentSensor
from layerprof.hooks.energy.meter import EnergyMeter
from sessions import ended, prepared
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from layerprof import registry
from layerprof.layers.nesting import whole_layers
from layerprof.measure import conduct
from layerprof.measure.session import Session
from layerprof.records import Run
from layerprof.settings import build

IDLE_W, GAP_S = 80.0, 0.08
WARM = 0.75
"""Power of a call whose weights are still in the cache, over that of a cold one."""
TOKENS = 100
"""Prompt tokens (rows x length) that a layer prefills in its `seconds`; in decode and vision it takes them whole."""
WATTS = {"vision_block": 300.0, "decoder_layer": 250.0, "lm_head": 350.0, "merger": 200.0, "patch_embed": 280.0}
SECONDS = {"vision_block": 0.24, "decoder_layer": 0.16, "lm_head": 0.2}
OTHERS_W, OTHERS_S = 150.0, 0.12


@dataclass(frozen=True, slots=True)
class Waits:
    """A host that cannot keep up: after `brief` of each layer's time the card waits so many times as long for it.

    The host has other speeds in the latency pass, under the counter, and where one layer is called again and again.
    """

    brief: float
    latency: float
    counter: float
    loop: float


class FakeCard:
    """A card, its clock and its counter; `host` adds a processor's counter beside it.

    `load` takes the place of `registry.load`: instruments of time and energy read this card.
    """

    def __init__(self, *, host: bool = False, sensor: bool = True, waits: Waits | None = None, **faults: Any) -> None:
        self.clock = FakeClock()
        self.machine = Machine(self.clock, IDLE_W)
        self.host = Machine(self.clock, 40.0) if host else None
        self.sensor = sensor
        self.faults = {"late_s": 0.1} | faults
        self.waits = waits
        self.interrupt_after: float | None = None
        self._load = registry.load
        self._last: nn.Module | None = None

    def load(self, kind: registry.Kind[Any]) -> Any:
        """Return the product's instrument, on this card's clock where it has one."""
        found, name = self._load(kind), kind.name
        if name == "latency":
            return partial(found, clock=lambda: round(self.clock.now() * 1e9))
        if name == "replay":
            return partial(found, meter=self.meter("cpu"), clock=self.clock, cache=100_000)
        return self.meter if name == "meter" else found

    def meter(self, device: str, **_: Any) -> EnergyMeter:
        """Return the product's meter over this card's counter."""
        if not self.sensor:
            return EnergyMeter(device, [AbsentSensor("cpu", "no counter here", "measure on bare metal")], self.clock)
        sensors = [FakeCounter(self.machine, **self.faults)]
        if self.host is not None:
            beside: dict[str, Any] = {"source": "rapl_powercap", "update_s": 0.001, "lag_s": 0}
            sensors.append(FakeCounter(self.host, name="Fake processor", **beside))
        return EnergyMeter(device, sensors, self.clock)

    def plug_in(self, session: Session) -> None:
        """Make the layers of a model draw power from this card; between two forward passes it idles."""
        model = session.subject.model
        for layer in session.asked.layers:
            if layer.name in whole_layers(session.asked.layers):
                watts, seconds = WATTS.get(layer.kind, OTHERS_W), SECONDS.get(layer.kind, OTHERS_S)
                _follow(model.get_submodule(layer.name), self._draw(watts, seconds, layer.tower == "language"))
        model.register_forward_hook(lambda *_: self._take(0.0, GAP_S))

    def _take(self, watts: float, seconds: float, again: bool = False) -> None:
        """Work at `watts` for that time, or rest where they are 0, and then wait for the host."""
        waits = self.waits
        if waits is not None:
            seconds *= waits.brief
        if watts:
            self.machine.run(watts, seconds)
        else:
            self.clock.sleep(seconds)
        if waits is not None:
            self.clock.sleep(
                seconds * (waits.loop if again else waits.counter if self.clock.watched else waits.latency)
            )

    def _draw(self, watts: float, seconds: float, language: bool) -> Callable[..., None]:
        def draw(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            first = next(value for value in (*args, *kwargs.values()) if hasattr(value, "shape"))
            rows, length = (first.shape[0], first.shape[1]) if first.ndim > 1 else (1, 1)
            share = rows * length / TOKENS if language and length > 1 else 1.0
            warm = WARM if self._last is module else 1.0
            again = type(self._last) is type(module)  # copies share the class that `_follow` made for them
            self._last = module
            self._take(watts * warm, seconds * share, again)
            if self.interrupt_after is not None and self.clock.now() > self.interrupt_after:
                self.interrupt_after = None
                raise KeyboardInterrupt

        return draw


class LingeringMachine(Machine):
    """A machine that goes on at `linger_w` watts for `linger_s` seconds after each load; only then it is idle."""

    def __init__(self, clock: FakeClock, idle_w: float = IDLE_W, linger_w: float = 140.0, linger_s: float = 0.05):
        super().__init__(clock, idle_w)
        self.linger_w, self.linger_s = linger_w, linger_s

    def run(self, watts: float | Sequence[float], seconds: float) -> None:
        """Pass `seconds` at `watts`, and calm down afterwards unless there is more to do."""
        super().run(watts, seconds)
        end = self.clock.now()
        self._watts[-1] = self.linger_w
        self._joules.append(self._joules[-1] + self.linger_w * self.linger_s)
        self._times.append(end + self.linger_s)
        self._watts.append(self.idle_w)

    def set(self, watts: float) -> None:
        """Change the power from now on; a calm that was still to come is called off."""
        while self._times[-1] > self.clock.now():
            for record in (self._times, self._watts, self._joules):
                record.pop()
        super().set(watts)


class Woken(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """While it is on, each operation of torch is a load of 10 us for the machine."""

    def __init__(self, machine: LingeringMachine) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.machine = machine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.machine.run(self.machine.linger_w, 1e-5)
        return func(*args, **(kwargs or {}))


def _follow(module: nn.Module, draw: Callable[..., None]) -> None:
    """Make `draw` a part of the module's own work, in its class: so copies of it draw as themselves."""
    kind: Any = type(module)

    @wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output = kind.forward(self, *args, **kwargs)
        draw(self, args, kwargs)
        return output

    module.__class__ = type(kind.__name__, (kind,), {"forward": forward})


def session_on(card: FakeCard, monkeypatch: Any, folder: Any, **options: Any) -> Session:
    """Return the session of the bundled model on the card."""
    monkeypatch.setattr(registry, "load", card.load)
    chosen: dict[str, Any] = {"model": "demo", "device": "cpu", "trace": False, "max_new_tokens": 4, "samples": 2}
    settings = build(**(chosen | {"output": str(folder)} | options))
    session = prepared(settings)
    card.plug_in(session)
    return session


def profiled(session: Session) -> Run:
    """Return the finished, saved run, as `layerprof.profile` does."""
    failure = conduct.conduct(session)
    if failure is not None:
        raise failure
    return ended(session, failure)
