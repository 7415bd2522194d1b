"""Replay: calls made again with the same answer, joules a call with intervals, plans, books that close."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fake_counter import FakeClock, FakeCounter, Machine
from hypothesis import given, settings
from hypothesis import strategies as st
from layerprof.hooks.energy.absent import AbsentSensor
from layerprof.hooks.energy.capture import CaptureHook
from layerprof.hooks.energy.clock import HostClock
from layerprof.hooks.energy.copies import copies_needed, rotate
from layerprof.hooks.energy.loop import Loop, verify
from layerprof.hooks.energy.meter import EnergyMeter
from layerprof.hooks.energy.replay import Replay
from layerprof.hooks.energy.state import CallInputs, difference
from torch import Tensor, nn

from layerprof.energy.amount import Amount, around, joules_of
from layerprof.energy.blocks import fit_blocks
from layerprof.energy.closure import RowPart, close
from layerprof.energy.replay_plan import Candidate, make_plan
from layerprof.energy.replayed import ReplayReading
from layerprof.readings import Layer
from layerprof.records import Phase, Quality

# --- the same call again -----------------------------------------------------------------------------------------


def _captured(name: str, attention: str = "sdpa", steps: int = 4) -> CaptureHook:
    import families

    from layerprof.layers.find import find_layers

    family = families.build(name, attention)
    hook = CaptureHook(family.model, find_layers(family.model), decode_step=2)
    with hook, hook.batch(0):
        families.run(family, steps)
    return hook


@pytest.mark.parametrize(
    ("name", "attention"), [("qwen2_5_vl", "sdpa"), ("gemma3", "sdpa"), ("mllama", "sdpa"), ("florence2", "eager")]
)
def test_every_captured_call_gives_again_what_it_gave_in_the_model(name: str, attention: str) -> None:
    """KV caches that grow, slide, cross over to the image or hang on an encoder: three calls in a row, same answer."""
    hook = _captured(name, attention)
    assert {c.phase for c in hook.calls.values()} == set(Phase)
    with torch.no_grad():
        refused = {c.key: why for c in hook.calls.values() if (why := verify(c, "cpu", HostClock()))}
    assert refused == {}


def test_capturing_leaves_no_hook_and_the_answer_as_it_was() -> None:
    """What is measured is the model as the user has it."""
    import families

    from layerprof.layers.find import find_layers

    family = families.build("qwen2_5_vl", "sdpa")
    bare = families.run(family, 4)
    hook = CaptureHook(family.model, find_layers(family.model), decode_step=2)
    with hook, hook.batch(0):
        assert torch.equal(families.run(family, 4), bare)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in family.model.modules())


def test_the_wanted_decode_step_is_kept_or_the_last_before_the_end() -> None:
    """The middle step stands for the mean of all; an answer of four tokens has three decode steps."""
    steps = {c.step for c in _captured("llama").calls.values() if c.phase is Phase.DECODE}
    assert steps == {2}
    short = {c.step for c in _captured("llama", steps=2).calls.values() if c.phase is Phase.DECODE}
    assert short == {1}


class _Sum(nn.Module):
    """Adds its input to a cache and gives the cache's mean: any state left behind shows."""

    layer_idx = 0

    def forward(self, x: Tensor, past_key_values: Any) -> Tensor:
        keys, values = past_key_values.update(x, x * 2, 0)
        length = past_key_values.get_seq_length(0)
        mixed: Tensor = keys.sum(-2) + values.sum(-2) + length
        return mixed


def _caches() -> list[Any]:
    from transformers import LlamaConfig
    from transformers.cache_utils import DynamicCache, StaticCache

    config = LlamaConfig(hidden_size=8, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=1)
    sliding = LlamaConfig(hidden_size=8, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=1)
    sliding.sliding_window = 4
    sliding.layer_types = ["sliding_attention"]
    return [
        DynamicCache(),
        DynamicCache(config=sliding),
        StaticCache(config=config, max_cache_len=16),
        StaticCache(config=sliding, max_cache_len=16),
    ]


@pytest.mark.parametrize("which", range(4))
def test_a_cache_is_put_back_before_each_call_and_the_models_own_stays_as_it_is(which: int) -> None:
    """Growing, sliding, written in place, written in place and sliding; each filled with six positions before."""
    cache, module = _caches()[which], _Sum()
    torch.manual_seed(0)
    for _ in range(6):
        module(torch.randn(1, 2, 1, 4), cache)
    x = torch.randn(1, 2, 1, 4)
    inputs = CallInputs((x,), {"past_key_values": cache}, frozenset([0]), lambda t: t.detach().clone())
    wanted = module(x, cache)
    after = int(cache.get_seq_length())
    found: list[Tensor] = []
    for attempt in (0, 1):
        if attempt:
            inputs.copy_everything()
        found = []
        for _ in range(4):
            args, kwargs = inputs.fresh()
            found.append(module(*args, **kwargs))
        if all(torch.equal(f, wanted) for f in found):
            break
    assert all(torch.equal(f, wanted) for f in found)
    assert int(cache.get_seq_length()) == after


def test_a_call_that_answers_otherwise_is_refused() -> None:
    """A layer with memory of its own is not the same call twice: no figure, with that reason."""

    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1.0
            return x + self.count

    model = nn.ModuleDict({"a": Forgetful()})
    hook = CaptureHook(model, [Layer("a", "vision", "vision_block", 0)])
    with hook, hook.batch(0):
        model["a"](torch.ones(2))
    (captured,) = hook.calls.values()
    assert "differs from the original" in str(verify(captured, "cpu", HostClock()))


def test_a_call_that_cannot_stand_alone_is_refused() -> None:
    """A layer that needs its model around it: its own words, no exception."""

    class Needy(nn.Module):
        ready = True

        def forward(self, x: Tensor) -> Tensor:
            if not self.ready:
                raise RuntimeError("no context")
            return x

    model = nn.ModuleDict({"a": Needy()})
    hook = CaptureHook(model, [Layer("a", "vision", "vision_block", 0)])
    with hook, hook.batch(0):
        model["a"](torch.ones(2))
    Needy.ready = False
    (captured,) = hook.calls.values()
    assert "no context" in str(verify(captured, "cpu", HostClock()))


@pytest.mark.parametrize(
    ("found", "wanted", "worst"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([math.nan, 2.0], [math.nan, 2.0], 0.0),
        ([math.nan, 2.0], [1.0, 2.0], math.inf),
        ([math.inf, 2.0], [math.inf, 2.0], 0.0),
    ],
)
def test_outputs_are_compared_by_their_largest_difference(
    found: list[float], wanted: list[float], worst: float
) -> None:
    """Relative to the largest value; NaN agrees with NaN only."""
    assert difference([torch.tensor(found)], [torch.tensor(wanted)]) == worst


def test_outputs_of_another_shape_differ() -> None:
    """However close their values."""
    assert difference([torch.ones(2)], [torch.ones(3)]) == math.inf


# --- cold weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "cache", "copies"), [(39_400_000, 50e6, 8), (154_000_000, 50e6, 3), (0, 50e6, 1)])
def test_copies_follow_the_published_rule(weights: int, cache: float, copies: int) -> None:
    """ceil(5 L2 / bytes) + 1: on an H100, 8 copies of a vision block of 39.4 MB, 3 of a decoder layer of 154 MB."""
    assert copies_needed(weights, int(cache)) == copies


def test_copies_are_apart_in_memory_and_give_the_same() -> None:
    """Weights of their own, equal values; too little room or too few weights are said."""
    layer = nn.Linear(16, 16)
    rotation = rotate(layer, "cpu", cache=1000, room=10**9)
    assert (len(rotation.modules), rotation.cold) == (copies_needed(17 * 16 * 4, 1000), True)
    assert len({m.weight.data_ptr() for m in rotation.modules}) == len(rotation.modules)
    assert all(torch.equal(m.weight, layer.weight) for m in rotation.modules)
    short = rotate(layer, "cpu", cache=10_000, room=3 * 17 * 16 * 4)
    assert (len(short.modules), short.cold) == (4, False)
    assert "memory" in str(short.reason)
    small = rotate(layer, "cpu", cache=10**8, room=10**12)
    assert len(small.modules) == 64
    assert "few" in str(small.reason)


def test_a_module_that_cannot_be_copied_is_measured_warm() -> None:
    """And the row says so."""

    class Single(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("one of a kind")

    rotation = rotate(Single(4, 4), "cpu", cache=1000, room=10**9)
    assert (len(rotation.modules), rotation.cold) == (1, False)
    assert "TypeError" in str(rotation.reason)


def test_a_module_whose_forward_was_replaced_is_measured_warm() -> None:
    """A compiled forward stays bound to the weights that it was made of: copies would only seem to keep caches cold."""
    module = nn.Sequential(nn.Linear(4, 4))
    inner = module[0]
    inner.forward = torch.compile(inner.forward, backend="eager")
    rotation = rotate(module, "cpu", cache=10_000, room=1 << 20)
    assert rotation.modules == (module,)
    assert not rotation.cold
    assert "warm" in (rotation.reason or "")
    del inner.forward
    assert rotate(module, "cpu", cache=100, room=1 << 20).cold


# --- rounds, statistics, plans -----------------------------------------------------------------------------------


def test_balanced_blocks_follow_the_formula() -> None:
    """Geometric mean and exp(+- t s / sqrt(R)) with s from the two-way residuals, worked out by hand here."""
    from scipy import stats

    logs = np.log(np.random.default_rng(0).lognormal(0, 0.02, (4, 6))) + np.array([[1.0], [2.0], [0.5], [1.5]])
    logs += np.linspace(0, 0.2, 6)
    fit = fit_blocks(np.exp(logs))
    residual = logs - logs.mean(1, keepdims=True) - logs.mean(0) + logs.mean()
    s, df = np.sqrt((residual**2).sum() / 15), 15
    half = stats.t.ppf(0.975, df) * s / np.sqrt(6)
    assert fit.df == df
    assert fit.joules == pytest.approx(np.exp(logs.mean(1)))
    assert fit.ci95[:, 1] == pytest.approx(np.exp(logs.mean(1) + half))
    assert fit.common_u == pytest.approx(logs.mean(0).std(ddof=1) / np.sqrt(6))


def test_one_layer_alone_has_its_own_scatter() -> None:
    """T with R - 1 degrees of freedom and the sample standard deviation."""
    from scipy import stats

    logs = np.array([[0.01, -0.02, 0.03, 0.0, 0.01]])
    fit = fit_blocks(np.exp(logs))
    half = stats.t.ppf(0.975, 4) * logs.std(ddof=1) / np.sqrt(5)
    assert fit.ci95[0, 1] == pytest.approx(np.exp(logs.mean() + half))
    assert fit.common_u == 0.0


def test_blocks_cover_the_truth_although_rounds_drift_and_windows_fail() -> None:
    """A drift of 20 % shared by all layers and a tenth of the windows missing: 93-97 % of layers covered."""
    rng = np.random.default_rng(4)
    covered: list[bool] = []
    for _ in range(250):
        truth = rng.uniform(0.5, 5, 6)
        rounds = np.linspace(-0.1, 0.1, 8)
        seen = truth[:, None] * np.exp(rounds + rng.normal(0, 0.015, (6, 8)))
        seen[rng.uniform(size=seen.shape) < 0.1] = np.nan
        fit = fit_blocks(seen)
        covered.extend((fit.ci95[:, 0] <= truth) & (truth <= fit.ci95[:, 1]))
    assert 0.93 <= np.mean(covered) <= 0.97


def test_blocks_with_nothing_or_one_round_have_no_interval() -> None:
    """No spread can be read from one value; a layer without any has no figure."""
    fit = fit_blocks(np.array([[2.0], [3.0]]))
    assert fit.joules == pytest.approx([2.0, 3.0])
    assert np.isnan(fit.ci95).all()
    assert np.isnan(fit_blocks(np.full((2, 3), np.nan)).joules).all()


def _units(kinds: int, each: int) -> list[Candidate]:
    return [Candidate(k, k % kinds, weight=float(k % kinds)) for k in range(kinds * each)]


def test_without_a_budget_everything_is_measured() -> None:
    """Every unit, one of each kind with warm caches too, 5 to 10 rounds."""
    plan = make_plan(_units(4, 25))
    assert len(plan.measured) == 100
    assert len(plan.hot) == 4
    assert plan.rounds == (5, 10)
    assert not plan.representative


@given(st.integers(1, 8), st.integers(1, 40), st.floats(1, 4000))
def test_a_plan_keeps_its_budget(kinds: int, each: int, budget: float) -> None:
    """Baselines and all rounds fit; at least two rounds or nothing; all calls, or one of a kind."""
    units = _units(kinds, each)
    plan = make_plan(units, budget)
    assert 2 * plan.baseline_s + plan.rounds[1] * plan.round_s <= budget * (1 + 1e-9)
    assert plan.rounds[1] >= 2 or not plan.measured
    of = [units[k].kind for k in plan.measured]
    assert len(of) == (len(set(of)) if plan.representative else len(units))
    assert plan.hot <= set(plan.measured)


def test_a_small_budget_measures_one_of_each_kind_the_heaviest_first() -> None:
    """100 units in 60 s: four representatives. In 8 s: the heaviest kind alone."""
    plan = make_plan(_units(4, 25), 60)
    assert plan.representative
    assert {u % 4 for u in plan.measured} == {0, 1, 2, 3}
    tiny = make_plan(_units(4, 25), 8)
    assert [u % 4 for u in tiny.measured] == [3]


# --- the books ---------------------------------------------------------------------------------------------------

PARTS = [
    RowPart(("v", Phase.VISION), 2.0, 0.01, 10, 0.02, "vision"),
    RowPart(("d", Phase.DECODE), 1.0, 0.01, 60, 0.01, "decode"),
]


def test_the_books_close_within_five_percent_or_their_own_uncertainty() -> None:
    """80 J of layers, 16 J of gaps (8 W for 2 s) against 100 J: 4 J are left, which passes."""
    found = close(around(100, 1), PARTS, around(8, 0.3), 2.0)
    assert found.residual.joules == pytest.approx(4.0)
    assert found.passed
    failing = close(around(120, 1), PARTS, around(8, 0.3), 2.0)
    assert not failing.passed
    unsure = close(around(120, 30), PARTS, around(8, 0.3), 2.0)
    assert unsure.passed
    assert unsure.tolerance == pytest.approx((unsure.residual.half or 0.0) / 120)


def test_the_residuals_interval_adds_shared_drift_and_own_scatter() -> None:
    """Rows of a phase drift together: 20 J at 1 % and 2 %, 60 J at 1 % and 1 %, by hand."""
    found = close(Amount(100, (100, 100)), PARTS)
    variance = 0.2**2 + 0.6**2 + 0.4**2 + 0.6**2
    assert found.residual.half == pytest.approx(1.959964 * math.sqrt(variance))
    together = [RowPart(p.key, p.joules, 0.0, p.calls, 0.01, "one") for p in PARTS]
    assert close(Amount(100, (100, 100)), together).residual.half == pytest.approx(1.959964 * 0.8)


@settings(max_examples=60)
@given(
    st.floats(1, 1e5),
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 500)), max_size=20),
    st.floats(0, 300),
    st.floats(0, 10),
)
def test_the_books_always_add_up(total: float, rows: list[tuple[float, int]], gap_w: float, gap_s: float) -> None:
    """Layers + gaps + residual = total, whatever the figures."""
    parts = [RowPart((f"l{k}", Phase.DECODE), j, 0.01, n) for k, (j, n) in enumerate(rows)]
    found = close(around(total, 1), parts, around(gap_w, 1), gap_s)
    summed = found.parts_j + found.gap_j + found.residual.joules
    assert summed == pytest.approx(total, rel=1e-9)
    assert found.residual.ci95 is not None
    assert found.residual.ci95[0] <= found.residual.joules <= found.residual.ci95[1]


def test_books_without_a_total_are_refused() -> None:
    """Nothing can be a share of nothing."""
    with pytest.raises(ValueError, match="positive"):
        close(around(0, 0), PARTS)


# --- a whole replay on a fake machine ----------------------------------------------------------------------------


class Power:
    """What a heater draws on; copies of a heater share it. `last` is whose weights are warm."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.drift: Callable[[float], float] = lambda _t: 1.0
        self.last: Any = None

    def __deepcopy__(self, memo: Any) -> Power:
        return self


class Heater(nn.Module):
    """A layer that takes a time and a power; a third more power where its weights are not warm."""

    def __init__(self, power: Power, watts: float, seconds: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(100))
        self.power, self.watts, self.seconds = power, watts, seconds

    def forward(self, x: Tensor) -> Tensor:
        """Draw the power for the time."""
        power = self.power
        cold = 1.0 if power.last is self else 4 / 3
        power.last = self
        power.machine.run(self.watts * cold * power.drift(power.machine.clock.now()), self.seconds)
        return x * self.weight[0]


class HeaterVlm(nn.Module):
    """Two kinds of vision block, decoder layers, a head."""

    def __init__(self, power: Power) -> None:
        super().__init__()
        self.visual = nn.ModuleList(Heater(power, w, 0.02) for w in (300.0, 300.0, 200.0))
        self.layers = nn.ModuleList(Heater(power, 250.0, 0.01) for _ in range(2))
        self.head = Heater(power, 350.0, 0.015)

    def generate(self, tokens: int = 4) -> None:
        """Encode, read, write."""
        x = torch.ones(1, 6, 4)
        for block in self.visual:
            x = block(x)
        for step in range(tokens):
            y = x if step == 0 else x[:, :1]
            for layer in self.layers:
                y = layer(y)
            self.head(y)


LAYERS = [
    *(Layer(f"visual.{k}", "vision", "vision_block", k) for k in range(3)),
    *(Layer(f"layers.{k}", "language", "decoder_layer", k) for k in range(2)),
    Layer("head", "language", "lm_head", 0),
]
TRUE_COLD = {"visual.0": 8.0, "visual.1": 8.0, "visual.2": 16 / 3, "layers.0": 10 / 3, "layers.1": 10 / 3, "head": 7.0}


def _bench(budget_s: float | None = None, **faults: Any) -> tuple[Replay, HeaterVlm, Power]:
    clock = FakeClock()
    power = Power(Machine(clock))
    model = HeaterVlm(power)
    meter = EnergyMeter("cpu", [FakeCounter(power.machine, late_s=0.1, **faults)], clock)
    replay = Replay(model, LAYERS, budget_s=budget_s, decode_step=2, meter=meter, clock=clock, cache=200)
    with replay.capture():
        model.generate()
    return replay, model, power


@pytest.fixture(scope="module")
def measured() -> ReplayReading:
    """Measure everything under a drift of 4 %."""
    replay, _, power = _bench()
    power.drift = lambda t: 1 + 0.04 * math.sin(t / 37)
    reading: ReplayReading = replay.measure()
    return reading


def test_replay_finds_the_joules_of_every_layer_in_every_phase(measured: ReplayReading) -> None:
    """Watts x seconds of cold weights, within 1.5 %, though the machine drifts by 4 %; label, rounds, no flags."""
    assert len(measured.rows) == 3 + 2 * 3
    for (name, _), row in measured.rows.items():
        assert row.quality is Quality.REPLAYED
        assert joules_of(row.energy) == pytest.approx(TRUE_COLD[name], rel=0.015)
        assert row.rounds >= 5
        assert row.measured_on == name
    assert measured.worst_share < 0.02


def test_replay_gives_the_warm_figure_beside_one_layer_of_each_kind(measured: ReplayReading) -> None:
    """A quarter less where the same weights are called again."""
    hot = {key: row.hot_j / row.energy.joules for key, row in measured.rows.items() if row.hot_j and row.energy}
    assert {key[0] for key in hot} == {"visual.0", "visual.2", "layers.0", "head"}
    assert all(share == pytest.approx(0.75, rel=0.03) for share in hot.values())


def test_replay_gives_active_joules_above_the_idle_model(measured: ReplayReading) -> None:
    """80 W idle, 15 ms a call: 1.2 J less."""
    row = measured.rows["head", Phase.DECODE]
    assert measured.context_w is not None
    assert measured.context_w.joules == pytest.approx(80.0, rel=0.01)
    assert row.energy is not None
    assert joules_of(row.active) == pytest.approx(row.energy.joules - 80 * 0.015, rel=0.01)


def test_replayed_layers_close_against_the_end_to_end_counter() -> None:
    """Calls x joules against a window of real answers in which the weights were as cold; the rest of it idle."""
    replay, model, power = _bench()
    reading = replay.measure()
    machine = power.machine
    meter = EnergyMeter("cpu", [FakeCounter(machine, late_s=0.1, seed=3)], machine.clock)
    answers = 30
    with meter, meter.window("whole"):
        start = machine.clock.now()
        for _ in range(answers):
            model.generate()
            machine.clock.sleep(0.05)
        true = machine.energy(start, machine.clock.now())
    total = meter.reading().window("whole").energy
    assert total is not None
    assert total.joules == pytest.approx(true, rel=0.01)
    calls = {(name, Phase.VISION): answers for name in ("visual.0", "visual.1", "visual.2")}
    for name in ("layers.0", "layers.1", "head"):
        calls[name, Phase.PREFILL] = answers
        calls[name, Phase.DECODE] = 3 * answers
    found = reading.closure(total, calls, gap_s=0.05 * answers)
    assert found.passed
    assert abs(found.residual.joules) < 0.02 * found.total.joules
    rows = reading.over_all(calls)
    assert sum(joules_of(r.energy) or 0 for r in rows.values()) == pytest.approx(found.parts_j)
    forgotten = reading.closure(total, {**calls, ("x", Phase.DECODE): 1})
    assert forgotten.missing == (("x", Phase.DECODE),)


def test_what_was_replayed_can_be_written_to_a_file(measured: ReplayReading) -> None:
    """Plain JSON: every row with its label, both baselines, and why it ended."""
    found = json.loads(json.dumps(measured.facts(), allow_nan=False))
    assert {(row["name"], row["phase"]) for row in found["rows"]} == {(n, str(p)) for n, p in measured.rows}
    assert {row["quality"] for row in found["rows"]} == {"replayed"}
    assert found["context_w"]["watts"] == pytest.approx(80, rel=0.01)
    assert found["stopped"] == measured.stopped


def test_a_small_budget_measures_representatives_and_says_so() -> None:
    """All decoder layers get the figure of one, with that reason; the time is kept."""
    replay, _, power = _bench(budget_s=70.0)
    before = power.machine.clock.now()
    reading = replay.measure()
    assert power.machine.clock.now() - before < 70.0 * 1.05
    lent = [row for key, row in reading.rows.items() if row.measured_on != key[0]]
    assert lent
    assert all("class representative" in str(row.reason) for row in lent)
    assert reading.rows["layers.1", Phase.DECODE].energy == reading.rows["layers.0", Phase.DECODE].energy
    assert reading.rows["layers.1", Phase.DECODE].measured_on == "layers.0"


def test_a_budget_too_small_for_anything_leaves_rows_with_the_remedy() -> None:
    """No joules rather than joules from half a second."""
    replay, _, _ = _bench(budget_s=4.0)
    reading = replay.measure()
    assert {row.energy for row in reading.rows.values()} == {None}
    assert all("--energy-budget" in str(row.reason) for row in reading.rows.values())


def test_without_a_sensor_every_row_says_why() -> None:
    """Nothing is run, nothing is measured."""
    clock = FakeClock()
    model = HeaterVlm(Power(Machine(clock)))
    meter = EnergyMeter("cpu", [AbsentSensor("cpu", "no counter", "get one")], clock)
    replay = Replay(model, LAYERS, meter=meter, clock=clock)
    with replay.capture():
        model.generate()
    reading = replay.measure()
    assert {(r.energy, r.quality, r.reason) for r in reading.rows.values()} == {
        (None, Quality.UNAVAILABLE, "no counter; get one")
    }


def test_an_interrupt_keeps_what_was_measured() -> None:
    """Ctrl-C in the second round: the first round's figures stand, without intervals where there is one value."""
    replay, _, _ = _bench()
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done == 12:
            raise KeyboardInterrupt

    reading = replay.measure(advance=advance)
    assert reading.interrupted
    assert all(row.energy for row in reading.rows.values())


def test_calls_unlike_those_in_the_model_are_flagged() -> None:
    """Clocks or caches differ: a replayed call that takes 20 ms where the model's took 30 ms."""
    replay, _, _ = _bench(budget_s=70.0)
    reading = replay.measure(in_situ_s={("visual.0", Phase.VISION): 0.03, ("head", Phase.DECODE): 0.015})
    assert "time unlike in the model" in reading.rows["visual.0", Phase.VISION].flags
    assert reading.rows["head", Phase.DECODE].flags == ()


def test_windows_of_a_failing_counter_have_reasons_not_figures() -> None:
    """A counter whose every read fails in the rounds: unavailable, with the counter's own reason."""
    replay, _, _ = _bench(budget_s=70.0, failing=1.0)
    reading = replay.measure()
    assert {row.energy for row in reading.rows.values()} == {None}
    assert all(row.reason for row in reading.rows.values())


def test_a_loop_ends_near_its_time_however_short_a_call_is() -> None:
    """Chunks follow the call's own length."""
    clock = FakeClock()
    power = Power(Machine(clock))
    model = nn.ModuleDict({"a": Heater(power, 100.0, 0.0005)})
    hook = CaptureHook(model, [Layer("a", "vision", "vision_block", 0)])
    with hook, hook.batch(0):
        model["a"](torch.ones(1, 2, 2))
    (captured,) = hook.calls.values()
    loop = Loop(captured, (captured.module,), "cpu", clock)
    loop.calibrate()
    before = clock.now()
    count = loop.run(1.0)
    assert clock.now() - before == pytest.approx(1.0, abs=0.03)
    assert count == pytest.approx((clock.now() - before) / 0.0005, abs=2)


def test_the_loop_waits_for_the_device_that_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks go on the stream of the model's GPU, which need not be torch's current one, and lie two chunks back."""
    waited: list[str] = []

    class Event:
        def record(self, stream: str) -> None:
            self.stream = stream

        def synchronize(self) -> None:
            waited.append(self.stream)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    clock = FakeClock()
    model = nn.ModuleDict({"a": Heater(Power(Machine(clock)), 100.0, 0.02)})
    hook = CaptureHook(model, [Layer("a", "vision", "vision_block", 0)])
    with hook, hook.batch(0):
        model["a"](torch.ones(1, 2, 2))
    (captured,) = hook.calls.values()
    assert Loop(captured, (captured.module,), "cuda:1", clock).run(0.09) == 5
    assert waited == ["stream of cuda:1"] * 3
