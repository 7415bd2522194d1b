"""The main command from Python: one run of the bundled model, its contract, its rows and books, and a user's hook."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from layerprof.hooks.base import LayerHook

import layerprof
from layerprof import registry
from layerprof.books import cost
from layerprof.books.evidence import OWN_FACTS
from layerprof.errors import RequestError, RunFailedError
from layerprof.measure import check
from layerprof.records import Phase, Quality, Run
from layerprof.settings import build

SAMPLES, BATCH = 3, 2


class CallCounter(LayerHook):  # type: ignore[misc]  # hooks/ has no types under its installed name
    """A user's own instrument: counts calls by phase."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.calls: dict[str, int] = {}

    def started(self, slot: int, phase: Phase) -> None:
        """Count a call."""
        self.calls[phase] = self.calls.get(phase, 0) + 1

    def reading(self) -> dict[str, int]:
        """Return the counts."""
        return self.calls


class Broken(CallCounter):
    """A user's instrument that fails in its walk, one way or another."""

    def batch(self, index: int) -> Any:
        """Fail."""
        raise FAILURES[0]


FAILURES: list[BaseException] = []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three captions of the bundled model in batches of two, eight tokens each, and a user's hook."""
    return layerprof.profile(
        model="demo",
        dataset="coco",
        samples=SAMPLES,
        batch_size=BATCH,
        max_new_tokens=8,
        fixed_tokens=True,
        device="cpu",
        hooks=(f"{__name__}:CallCounter",),
        assume_watts=50.0,
        output=str(tmp_path_factory.mktemp("runs") / "run"),
    )


@pytest.fixture
def folder(run: Run) -> Path:
    """Where the run lies."""
    return Path(run.settings["output"])


def test_run_json_has_the_contracts_names(run: Run, folder: Path) -> None:
    """Scripts build on these names: what stands in the contract is there, whatever else is."""
    stored = json.loads((folder / "run.json").read_text())
    contract = {
        "": "format created settings environment samples totals layers ledger",
        "totals": "wer task_metric latency_s flops flops_per_sample energy peak_memory_bytes overhead_ratio",
        "totals.wer": "corpus_min corpus_first mean_clipped mer substitutions deletions insertions reference_words "
        "hypothesis_words truncated_share ci95",
        "totals.latency_s": "per_batch per_sample ttft per_output_token",
        "totals.latency_s.ttft": "median p95 ci95",
        "totals.energy": "joules per_sample per_output_token quality source reason",
        "layers.0": "name tower kind index phase calls flops bytes span_s busy_s energy_j energy_ci95 "
        "energy_quality energy_reason",
        "layers.0.span_s": "total median p95",
        "ledger": "flops span_s busy_s energy_j",
        "ledger.flops": "layers rest residual total",
        "environment": "device torch transformers",
    }
    for path, names in contract.items():
        part: Any = stored
        for step in filter(None, path.split(".")):
            part = part[int(step)] if step.isdigit() else part[step]
        assert set(names.split()) <= set(part), path
    assert stored["format"] == 5
    assert layerprof.load_run(folder) == run


def test_a_run_says_by_which_rules_its_rates_were_made(run: Run) -> None:
    """Captions have no metric of their own: the word error rate's rules are told, and no others."""
    assert run.settings["normalisation"] == {"wer": "words-1"}


def test_every_block_has_a_row_in_each_phase_it_runs_in(run: Run) -> None:
    """Four vision blocks once; six decoder layers in prefill and decode; each with FLOPs, bytes and span."""
    vision = [row for row in run.layers if row.kind == "vision_block"]
    decoder = [row for row in run.layers if row.kind == "decoder_layer"]
    assert len(vision) == 4
    assert {row.phase for row in vision} == {Phase.VISION}
    assert sorted((row.index, row.phase) for row in decoder) == sorted(
        (index, phase) for index in range(6) for phase in (Phase.PREFILL, Phase.DECODE)
    )
    for row in vision + decoder:
        assert row.flops is not None
        assert row.flops > 0
        assert row.bytes is not None
        assert row.bytes > 0
        assert row.span_s is not None
        assert row.span_s.total > 0
    batches = -(-SAMPLES // BATCH)
    assert {row.calls for row in decoder if row.phase is Phase.PREFILL} == {batches}
    assert {row.calls for row in decoder if row.phase is Phase.DECODE} == {batches * 7}, "the first token is prefill's"


def test_flops_equal_the_closed_form(run: Run) -> None:
    """A decoder layer's decode is 2 x (its matrices) + 4 x width x KV length per row and step (protocol 1.4)."""
    width, kv_width, wide = 192, 64, 384
    matrices = 2 * width * width + 2 * width * kv_width + 3 * width * wide
    assert run.totals.prompt_tokens is not None
    prompt = run.totals.prompt_tokens // SAMPLES  # captions are all asked alike, so no row is padded
    assert run.totals.pad_tokens == 0
    steps = sum(2 * matrices + 4 * width * (prompt + step) for step in range(1, 8))
    row = next(row for row in run.layers if row.kind == "decoder_layer" and row.phase is Phase.DECODE)
    assert row.flops == SAMPLES * steps
    first = next(row for row in run.layers if row.kind == "decoder_layer" and row.phase is Phase.PREFILL)
    assert first.flops == SAMPLES * (2 * matrices * prompt + 4 * width * prompt * prompt)


def test_the_books_balance(run: Run) -> None:
    """FLOPs to the last digit; time within 2 %; kernels (CPU operators here) fully in buckets."""
    books = run.ledger
    assert books.flops.residual == 0
    for column in (books.span_s, books.busy_s):
        assert column.layers is not None
        assert column.total
        assert column.residual is not None
        assert column.layers + sum(column.rest.values()) + column.residual == pytest.approx(column.total)
        assert abs(column.residual) <= 0.02 * column.total
    assert books.energy_j.total is None
    assert books.energy_j.reason


def test_energy_is_never_without_a_label(run: Run) -> None:
    """Where no counter is, joules are None with a reason, and the assumed watts stand in a field of their own."""
    energy, guess = run.totals.energy, run.totals.energy_estimate
    if energy.quality is Quality.UNAVAILABLE:
        assert energy.joules is None
        assert energy.reason
        assert guess is not None
        assert guess.inputs["assumed_w"] == 50.0
        seconds = sum(float(row["latency_s"]) for row in _batches(run))
        assert guess.joules == pytest.approx(50.0 * seconds, rel=1e-6)
    else:
        assert guess is None


def test_the_cost_of_measuring_can_be_derived_from_the_batches(run: Run) -> None:
    """Each batch's two times lie beside the run; the median of their ratios is the run's."""
    ratios = [float(row["hooked_s"]) / float(row["latency_s"]) for row in _batches(run)]
    assert len(ratios) == 2
    assert run.totals.overhead_ratio == pytest.approx(sum(ratios) / 2)
    assert run.totals.overhead_ci95 is None, "two pairs are too few"


def test_the_request_and_the_rates_can_be_derived_from_the_batches(run: Run) -> None:
    """Parts and walls of the batches sum to the books of the request; rates are over these, and over generate()."""
    rows = list(_batches(run))
    books = run.ledger.request_s
    assert books is not None
    for part, column in (("read", "read_s"), ("process", "process_s"), ("copy", "copy_s"), ("generate", "latency_s")):
        assert getattr(books, part) == pytest.approx(sum(float(row[column]) for row in rows)), part
    assert books.total == pytest.approx(sum(float(row["wall_s"]) for row in rows))
    assert run.totals.samples_per_s == pytest.approx(SAMPLES / sum(float(row["wall_s"]) for row in rows))
    tokens = sum(int(row["new_tokens"]) for row in rows)
    assert run.totals.output_tokens_per_s == pytest.approx(tokens / sum(float(row["latency_s"]) for row in rows))


def test_captions_have_no_cost_of_a_right_answer(run: Run) -> None:
    """No metric tells a right caption: None, with that reason or, where nothing measures joules, that one."""
    energy = run.totals.energy
    assert energy.per_correct_answer is None
    assert energy.per_correct_answer_reason == (energy.reason if energy.joules is None else cost.NO_METRIC)


def _batches(run: Run) -> Iterator[dict[str, str]]:
    with (Path(run.settings["output"]) / run.files["batches"]).open() as lines:
        yield from (row for row in csv.DictReader(lines) if row.get("pass", "bare") == "bare")


def test_what_lies_beside_the_run(run: Run, folder: Path) -> None:
    """Every file that the run names is there, relative to its folder, and the traces are where TensorBoard looks."""
    for name in run.files.values():
        assert (folder / name).is_file(), name
        assert not Path(name).is_absolute()
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == run.samples == SAMPLES
    assert {len(line["answer_tokens"]) <= 8 for line in lines} == {True}
    with (folder / "layers.csv").open() as table:
        assert len(list(csv.DictReader(table))) == len(run.layers)
    assert list(folder.rglob("*.pt.trace.json.gz"))
    assert list(folder.glob("events.out.tfevents.*"))


def test_a_users_hook_gets_its_own_walk(run: Run) -> None:
    """Its reading stands in the run, and it saw every phase."""
    counts = run.passes[f"{__name__}:CallCounter"]
    assert counts["vision"] > 0
    assert counts["decode"] == 7 * counts["prefill"], "every layer of the language tower runs at each of 7 steps"


@pytest.mark.parametrize("failure", [ValueError("off by one"), SystemExit(3)])
def test_a_users_hook_that_fails_is_told_as_the_hooks_failure(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is not blamed, and what was measured before the hook's walk is saved."""
    monkeypatch.setitem(globals(), "FAILURES", [failure])
    names = tuple(f"{__name__}:{name}" for name in ("CallCounter", "Broken"))
    with pytest.raises(RunFailedError, match=rf"The hook '{__name__}:Broken' failed: {type(failure).__name__}"):
        layerprof.profile(
            model="demo", samples=1, max_new_tokens=1, trace=False, hooks=names, output=str(tmp_path / "run")
        )
    saved = layerprof.load_run(tmp_path / "run")
    assert saved.status == "failed"
    assert saved.totals.flops
    assert names[0] in saved.passes


def test_settings_say_what_took_effect(run: Run) -> None:
    """Nothing is left at 'auto', and the convention is stated."""
    assert run.settings["device"] == "cpu"
    assert run.settings["dtype"] == "fp32"
    assert run.settings["source"] == "bundled"
    assert "2 FLOPs per multiply-accumulate" in run.settings["convention"]
    assert "auto" not in {str(value) for name, value in run.settings.items() if name != "energy"}


def test_a_selection_shows_fewer_rows_and_the_same_books(run: Run, tmp_path: Path) -> None:
    """--layers decides what gets a row; the ledger is of the whole model all the same."""
    some = layerprof.profile(
        model="demo",
        dataset="coco",
        samples=1,
        layers="vision[0],language[*].mlp",
        max_new_tokens=2,
        trace=False,
        output=str(tmp_path / "run"),
    )
    assert {row.name for row in some.layers if row.tower == "vision"} == {"model.visual.blocks.0"}
    assert {row.kind for row in some.layers if row.tower == "language"} == {"module"}
    assert some.ledger.flops.residual == 0
    assert "merger" in some.ledger.flops.rest
    assert some.ledger.busy_s.total is None
    assert "--no-trace" in str(some.ledger.busy_s.reason)


def test_what_a_run_keeps_of_its_passes_is_known_by_name(run: Run) -> None:
    """Every fact of its own is among the names that no hook may have; the hook's reading is the only other one."""
    assert run.passes.keys() - OWN_FACTS == set(run.settings["hooks"])


def test_a_hook_cannot_take_the_name_of_what_a_run_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reading would be lost under the run's own entry; that is told before anything is measured."""
    monkeypatch.setattr(registry, "load_own", lambda name: object)
    for name in ("energy", "reasons", "cross_check"):
        with pytest.raises(RequestError, match=f"cannot be called '{name}'"):
            check.check(build(model="demo", device="cpu", hooks=(name,)))


def test_unknown_settings_are_told_by_name() -> None:
    """From Python, a misspelt option is refused like on the command line."""
    with pytest.raises(RequestError, match="batchsize"):
        layerprof.profile(model="demo", batchsize=2)


def test_from_python_paths_are_taken_and_other_things_told(tmp_path: Path) -> None:
    """A Path is as good as its text; a name without its option, and a model in memory, get the way to write it."""
    assert build(output=tmp_path).output == str(tmp_path)
    with pytest.raises(RequestError, match="given a str") as caught:
        layerprof.profile("demo")  # type: ignore[arg-type]  # the mistake is the test
    assert 'profile(model="demo"' in caught.value.remedy
    with pytest.raises(RequestError, match="given settings, and samples"):
        layerprof.profile(build(model="demo"), samples=8)
    with pytest.raises(RequestError, match="Identity in memory") as caught:
        layerprof.profile(model=torch.nn.Identity())
    assert "LayerProfiler" in caught.value.remedy
