"""Cells on the bundled model: who they are, what they leave behind, and padding on the wrong side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layerprof.hooks import recording
from layerprof.hooks.energy.absent import AbsentSensor
from layerprof.hooks.energy.meter import EnergyMeter

from layerprof import registry
from layerprof.commands.cells import Runner
from layerprof.energy.instruments import METER
from layerprof.errors import RequestError
from layerprof.machine import environment
from layerprof.measure import check
from layerprof.runs import batch_files, store
from layerprof.settings import build

BASE: dict[str, Any] = {"model": "demo", "dataset": "scienceqa", "samples": 3, "device": "cpu", "image_size": 56}


@pytest.fixture(scope="module")
def runner() -> Runner:
    """Return a runner, on which the model stays loaded between tests."""
    return Runner()


def test_padding_is_moved_from_left_to_right_and_images_stay() -> None:
    """Rows of 3 and 2 tokens: the short row's padding goes behind it in everything that is rows x positions."""
    import torch

    from layerprof.data.batching import Batch
    from layerprof.sweep.quality_walk import padded_right

    tensors = {
        "input_ids": torch.tensor([[1, 2, 3], [0, 4, 5]]),
        "attention_mask": torch.tensor([[1, 1, 1], [0, 1, 1]]),
        "pixel_values": torch.arange(8.0).reshape(4, 2),
    }
    none = ((), ())
    batch = Batch(0, ("a", "b"), none, none, ("a", "b"), (3, 2), (0, 1), (0, 0), (0, 0), tensors=tensors)
    moved = padded_right(batch).tensors
    assert moved["input_ids"].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert moved["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert torch.equal(moved["pixel_values"], tensors["pixel_values"])
    assert tensors["input_ids"].tolist() == [[1, 2, 3], [0, 4, 5]]


def test_a_cell_is_who_it_resolves_to(runner: Runner) -> None:
    """`auto` and what it stands for have one key; another batch size, repeat or sample has another."""
    plain = runner.identify(BASE, {})
    same = runner.identify(BASE | {"dtype": "fp32", "source": "bundled", "padding_side": "left"}, {})
    assert plain.key() == same.key()
    others = [runner.identify(BASE | change, {}).key() for change in ({"batch_size": 2}, {"samples": 2}, {"seed": 1})]
    assert len({plain.key(), plain.key(repeat=1), *others}) == 5
    assert len(plain.data["ids"]) == 3
    assert plain.choices["max_new_tokens"] == 16


def test_a_format_of_weights_is_part_of_who_a_cell_is(runner: Runner) -> None:
    """With the version of the package that makes it, and what it leaves; a cell without one names no such package."""
    plain = runner.identify(BASE, {})
    assert not {"torchao", "bitsandbytes", "optimum-quanto"} & plain.versions.keys()
    int8 = runner.identify(BASE | {"quantization": "int8"}, {})
    assert int8.versions["torchao"] == environment.package_version("torchao")
    less = runner.identify(BASE | {"quantization": "int8", "quantization_skip": "vision"}, {})
    assert len({who.key() for who in (plain, int8, less)}) == 3
    same = runner.identify(BASE | {"quantization": "int8", "quantization_skip": "none"}, {})
    assert same.key() == int8.key()


def test_a_format_whose_package_is_missing_is_refused_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a sweep skips the cell and says why."""
    there = environment.package_version
    monkeypatch.setattr(environment, "package_version", lambda name: None if name == "bitsandbytes" else there(name))
    with pytest.raises(RequestError, match="needs the package bitsandbytes"):
        Runner().identify(BASE | {"quantization": "nf4"}, {})


def test_an_adapter_is_part_of_who_a_cell_is(tmp_path: Path) -> None:
    """One folder that holds another adapter than before is another cell, although name and base model are the same."""
    import peft

    from layerprof.demo import MODEL_FOLDER

    folder = tmp_path / "adapter"
    keys = set()
    for rank in (2, 4):
        config = peft.LoraConfig(r=rank, target_modules=["q_proj"], base_model_name_or_path=str(MODEL_FOLDER))
        config.save_pretrained(str(folder))
        runner = Runner()
        asked = BASE | {"model": str(folder), "weights": "random", "source": "bundled"}
        keys.add(runner.identify(asked, {}).key())
        assert runner.identify(asked, {}).versions["peft"] == environment.package_version("peft")
    assert len(keys) == 2


def test_the_attention_of_each_tower_is_part_of_who_a_cell_is(runner: Runner) -> None:
    """However it was asked for: by the optimisation, by one name, or for each tower; another mix is another cell."""
    sdpa = runner.identify(BASE | {"optimization": "sdpa"}, {})
    assert sdpa.choices["attention"] == "sdpa"
    for asked in ("sdpa", "vision=sdpa", "language=sdpa,vision=sdpa"):
        assert runner.identify(BASE | {"optimization": "sdpa", "attention": asked}, {}).key() == sdpa.key()
    mixed = runner.identify(BASE | {"optimization": "sdpa", "attention": "vision=eager"}, {})
    assert mixed.choices["attention"] == "vision=eager,language=sdpa"
    assert mixed.key() != sdpa.key()


def test_a_part_for_the_instruments_is_told_by_what_it_comes_to(runner: Runner) -> None:
    """Of three samples the default, all, 3, and 2 in batches of two with one more are the same walk; 1 is another.

    What adds figures, and what lets a cell end that would fail, makes another cell, too.
    """
    plain = runner.identify(BASE, {})
    assert plain.choices["instrumented"] == 3
    for same in ("all", 3, 64):
        assert runner.identify(BASE | {"instrumented": same}, {}).key() == plain.key()
    pairs = [runner.identify(BASE | {"batch_size": 2, "instrumented": count}, {}) for count in (1, 2, 3)]
    assert [pair.choices["instrumented"] for pair in pairs] == [2, 2, 3]
    others = ({"instrumented": 1}, {"prefetch": 1}, {"memory": True}, {"skip_bad": True})
    assert plain.key() not in {runner.identify(BASE | change, {}).key() for change in others}


def test_demo_settings_are_laid_over_where_the_model_is_the_bundled_one(runner: Runner) -> None:
    """The `[demo]` part of an experiment counts for the bundled model."""
    assert runner.identify(BASE, {"samples": 2}).choices["samples"] == 2


def test_what_cannot_be_is_refused_without_loading_a_model(runner: Runner) -> None:
    """A wrong image size, selector or hook is told when cells are identified."""
    for change in ({"image_size": 57}, {"layers": "vision["}, {"model": "dmeo"}, {"hooks": ["memory"]}):
        with pytest.raises(RequestError):
            runner.identify(BASE | change, {})


def test_a_replay_without_a_counter_is_refused_with_the_other_mistakes(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell is checked as a single run is: what no sensor here can measure is told before anything is loaded."""
    real = registry.load

    def load(kind: registry.Kind[Any]) -> Any:
        if kind is not METER:
            return real(kind)
        return lambda device, **_: EnergyMeter(
            device, [AbsentSensor("cpu", "no counter here", "measure on bare metal")]
        )

    monkeypatch.setattr(registry, "load", load)
    with pytest.raises(RequestError, match=r"--energy replay cannot run: .*no counter here"):
        runner.identify(BASE | {"energy": "replay"}, {})


def test_random_weights_are_those_of_the_cells_seed(runner: Runner, tmp_path: Path) -> None:
    """Two cells that differ in their seed have different weights, and each run says which seed its weights have."""
    firsts = []
    for seed in (3, 4):
        asked = BASE | {"weights": "random", "seed": seed, "samples": 1, "max_new_tokens": 1, "trace": False}
        runner.run(runner.identify(asked, {}), 0, tmp_path / str(seed), lambda _: None)
        assert store.load(tmp_path / str(seed)).model["seed"] == seed
        model = runner.subject(check.resolve(build(model="demo", device="cpu", weights="random", seed=seed))).model
        firsts.append(next(model.parameters()).flatten()[:8].tolist())
    assert firsts[0] != firsts[1]


def test_a_cell_leaves_a_run_with_its_batches_and_guards(runner: Runner, tmp_path: Path) -> None:
    """Work of a fixed number of tokens is timed; answers end where the model ends them, and are the same alone."""
    asked = BASE | {"batch_size": 2, "max_new_tokens": 3, "fixed_tokens": True, "trace": False, "energy": "off"}
    told: list[str] = []
    guards = runner.run(runner.identify(asked, {}), 0, tmp_path / "cell", told.append)
    run = store.load(tmp_path / "cell")
    assert run.status == "done"
    assert run.totals.output_tokens == 3 * 3
    batches = batch_files.load_batches(tmp_path / "cell")
    assert [(batch.rows, batch.new_tokens) for batch in batches] == [(2, 6), (1, 3)]
    assert run.totals.latency_s.per_batch.n == 2
    spans = batch_files.load_spans(tmp_path / "cell")
    assert {name for name, _ in spans} == {row.name for row in run.layers if row.span_s}
    assert all(len(answer.answer_tokens) <= 3 for answer in store.load_samples(tmp_path / "cell"))
    assert guards is not None
    assert (guards.batch_invariant, guards.checked, guards.not_finite) == (1.0, 3, 0)
    assert any(line.startswith("quality") for line in told)


@pytest.mark.parametrize("recorded", [0, 1])
def test_a_process_that_recorded_a_gpu_is_spent(
    runner: Runner, recorded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever recorded it: the next cell's times would hold what the profiler left behind."""
    monkeypatch.setitem(recording.SESSIONS, "cuda", recorded)
    asked = BASE | {"samples": 1, "max_new_tokens": 1, "trace": False, "energy": "off"}
    runner.run(runner.identify(asked, {}), 0, tmp_path / "cell", lambda _: None)
    assert runner.spent == bool(recorded)


def test_cells_share_a_loaded_model(runner: Runner) -> None:
    """The same source gives the same object, whatever the cell's batch size."""
    source = check.resolve(build(model="demo", device="cpu"))
    assert runner.subject(source) is runner.subject(source)
