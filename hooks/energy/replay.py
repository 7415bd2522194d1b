"""Replay: each layer's real calls again and again, long enough for the energy counter; joules a call with intervals.

::

    replay = Replay(model, layers, "cuda:0", budget_s=600)
    with replay.capture():
        model.generate(**batch)
    reading = replay.measure()
    reading.rows["model.visual.blocks.0", Phase.VISION].energy

Works against any `Sensor`. The order of layers is shuffled in every round (randomised complete blocks); each window
opens in a load that already runs, and closes inside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from layerprof.hooks.energy.capture import Captured, CaptureHook, kind_of
from layerprof.hooks.energy.clock import HostClock
from layerprof.hooks.energy.copies import rotate
from layerprof.hooks.energy.loop import Loop, verify
from layerprof.hooks.energy.meter import EnergyMeter

from layerprof.energy.awake import rest_awake
from layerprof.energy.instruments import Clock, MakesReplay, Meter
from layerprof.energy.measured import mean_power
from layerprof.energy.replay_plan import HOT_SETTLE_S, SETTLE_S, TARGET, Candidate, Plan, make_plan
from layerprof.energy.replayed import INTERRUPTED, ReplayReading
from layerprof.energy.summary import CallWindows, summarise
from layerprof.readings import Key, Layer
from layerprof.records import Phase
from layerprof.settings import EnergySensor

CONTEXT, GAP = "context", "gap"
GAP_STEP_S = 2e-4


@dataclass
class _Bench:
    """One unit at work: why it cannot be replayed, what is to be said of it, and the calls of its windows by label."""

    captured: Captured
    refusal: str | None
    remark: str | None = None
    cold: dict[str, int] = field(default_factory=dict)
    hot: dict[str, int] = field(default_factory=dict)
    waited: list[bool | None] = field(default_factory=list)


@dataclass
class _Work:
    """A measuring in flight."""

    plan: Plan
    captured: Sequence[Captured]
    members: Mapping[Key, Hashable]
    advance: Callable[[], None]
    benches: dict[int, _Bench] = field(default_factory=dict)


class Replay:
    """Captures calls, then measures them.

    `sensor` says whose counter is read; `meter` and `clock` replace the device's own; `cache` is its L2 in bytes.

    `decode_step` should be the middle of the answer (see `CaptureHook`). `budget_s` bounds the measuring (None: 5 to 10
    rounds of everything); one that cannot hold three rounds measures one call of each kind for all of its kind.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        layers: Sequence[Layer],
        device: str = "cpu",
        *,
        budget_s: float | None = None,
        decode_step: int = 1,
        meter: Meter | None = None,
        clock: Clock | None = None,
        cache: int | None = None,
        seed: int = 0,
        sensor: EnergySensor = "auto",
    ) -> None:
        self.device = str(device)
        self.clock: Clock = clock or HostClock()
        self.meter: Meter = meter or EnergyMeter(self.device, clock=self.clock, sensor=sensor)
        self.budget_s = budget_s
        self.cache = cache
        self._random = random.Random(seed)
        # A language layer runs in two phases: an upper bound of the units, known before the first call.
        most = make_plan([Candidate(k, k) for k in range(2 * len(layers))], budget_s)
        self._hook = CaptureHook(model, layers, decode_step, one_of_a_kind=most.representative)

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Catch the calls of one `generate()` that runs inside; the hooks are gone afterwards."""
        with self._hook, self._hook.batch(0):
            yield

    def plan(self) -> Plan:
        """Return what will be measured of the calls that were caught, and for how long."""
        units = [Candidate(k, kind_of(c.signature), _weight(c)) for k, c in enumerate(self._hook.calls.values())]
        return make_plan(units, self.budget_s)

    def measure(
        self, in_situ_s: Mapping[Key, float] | None = None, advance: Callable[[], None] | None = None
    ) -> ReplayReading:
        """Measure what was caught and return joules a call per layer and phase.

        `in_situ_s` are the seconds a call took inside the model, by (layer, phase); a replayed call that differs from
        it by more than 5 % is flagged. `advance` is called after each layer. Ctrl-C ends the measuring with what there
        is (`ReplayReading.interrupted`).
        """
        members = {key: kind_of(signature) for key, signature in self._hook.members.items()}
        if not self.meter.available:
            return summarise([], members, reason=self.meter.reason)
        work = _Work(self.plan(), list(self._hook.calls.values()), members, advance or (lambda: None))
        with torch.no_grad(), self.meter:
            try:
                stopped = self._rounds(work)
            except KeyboardInterrupt:
                stopped = INTERRUPTED
        return replace(self._summary(work, in_situ_s, stopped), instrument=self.meter.reading().facts())

    # --- measuring -------------------------------------------------------------------------------------------------

    def _rounds(self, work: _Work) -> str:
        """Measure the baselines and round after round; return why it ended."""
        started = self.clock.now()
        # What ran before must have left the counter, and the clocks must have dropped.
        self.clock.sleep(min(SETTLE_S, work.plan.baseline_s))
        with self.meter.window(CONTEXT, steady=True):
            self.clock.sleep(work.plan.baseline_s)
        self._gap(work.plan.baseline_s)
        least, most = work.plan.rounds
        for number in range(most):
            round_started = self.clock.now()
            self._round(number, work)
            now = self.clock.now()
            if number + 1 >= least and self._summary(work).worst_share < TARGET:
                return f"every interval is within {100 * TARGET:g} % after {number + 1} rounds"
            if self.budget_s is not None and now - started + (now - round_started) > self.budget_s:
                return f"the budget of {self.budget_s:g} s is spent after {number + 1} rounds"
        return f"all {most} rounds are done"

    def _gap(self, seconds: float) -> None:
        """Measure the power between kernels: clocks up, next to nothing to do."""
        there = self.device.startswith("cuda") and torch.cuda.is_available()
        mark = torch.zeros(1, device=self.device if there else "cpu")
        with self.meter.window(GAP, steady=True):
            rest_awake(self.clock, seconds, lambda: GAP_STEP_S, lambda: mark.add_(1))

    def _round(self, number: int, work: _Work) -> None:
        """Measure each unit once, in a new order."""
        order = list(work.plan.measured)
        self._random.shuffle(order)
        for unit in order:
            if unit not in work.benches:
                captured = work.captured[unit]
                work.benches[unit] = _Bench(captured, verify(captured, self.device, self.clock))
            bench = work.benches[unit]
            if bench.refusal is None:
                self._visit(bench, f"{unit} in round {number}", unit in work.plan.hot, work.plan)
            work.advance()

    def _visit(self, bench: _Bench, label: str, hot: bool, plan: Plan) -> None:
        """Measure one unit with cold weights and, where asked for, with warm ones; its copies live only here."""
        rotation = rotate(bench.captured.module, self.device, self.cache)
        copied = "each call copies cache contents back, whose joules are in the figure"
        remarks = [rotation.reason, copied if bench.captured.inputs.copies_state else None]
        bench.remark = "; ".join(r for r in remarks if r) or None
        cold = Loop(bench.captured, rotation.modules, self.device, self.clock)
        bench.cold[f"{label}, cold"], waited = self._window(f"{label}, cold", cold, plan.settle_s, plan.window_s)
        bench.waited.append(waited)
        if hot:
            warm = Loop(bench.captured, rotation.modules[:1], self.device, self.clock)
            bench.hot[f"{label}, hot"], _ = self._window(f"{label}, hot", warm, HOT_SETTLE_S, plan.window_s)

    def _window(self, label: str, loop: Loop, settle_s: float, window_s: float) -> tuple[int, bool | None]:
        """Run the loop for the settling time, then for the window inside it.

        Return the window's calls, and whether the device was left waiting in it (`Loop.drain`).
        """
        loop.calibrate()
        loop.run(settle_s)
        with self.meter.window(label, steady=True):
            count = loop.run(window_s)
            waited = loop.drain()
        return count, waited

    # --- evaluation ------------------------------------------------------------------------------------------------

    def _summary(self, work: _Work, in_situ_s: Mapping[Key, float] | None = None, stopped: str = "") -> ReplayReading:
        windows = {w.label: w for w in self.meter.reading().windows}
        calls = [
            CallWindows(
                key=bench.captured.key,
                cold=tuple((windows[label], count) for label, count in bench.cold.items()),
                hot=tuple((windows[label], count) for label, count in bench.hot.items()),
                host_bound=None if None in bench.waited or not bench.waited else all(bench.waited),
                refusal=bench.refusal,
                remark=bench.remark,
            )
            for bench in work.benches.values()
        ]
        return summarise(
            calls,
            work.members,
            context_w=mean_power(windows.get(CONTEXT)),
            gap_w=mean_power(windows.get(GAP)),
            in_situ_s=in_situ_s,
            stopped=stopped,
        )


def _weight(captured: Captured) -> float:
    """How much of a run a call is thought to be: its weights are read once a call, in decode once a token."""
    size = sum(p.numel() for p in captured.module.parameters())
    return float(size) * (8.0 if captured.phase is Phase.DECODE else 1.0) + 1.0


if TYPE_CHECKING:
    _: MakesReplay = Replay
