"""The main command from Python: one run of the bundled model, its contract, and how it ends when things go wrong."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from layerprof.hooks import recording
from layerprof.hooks.base import LayerHook
from sessions import ask, ask_setting, ended, prepared

import layerprof
from layerprof.books import totals
from layerprof.errors import NothingFinishedError, RequestError, RunFailedError
from layerprof.measure import conduct, energy_pass, passes, remarks
from layerprof.measure.session import Session
from layerprof.readings import Generated, Walked
from layerprof.records import Phase, Quality, Run
from layerprof.report.formats import tensorboard
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
    assert stored["format"] == 2
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


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Prepare a run of two batches."""
    settings = build(model="demo", dataset="coco", samples=2, max_new_tokens=2, trace=False, output=str(tmp_path / "r"))
    return prepared(settings)


def _stop_after(monkeypatch: pytest.MonkeyPatch, calls: int, error: BaseException) -> None:
    """Make the walk raise at its n-th answer."""
    real, count = passes.answer, [0]

    def answer(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] > calls:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(passes, "answer", answer)


def test_an_interrupt_saves_what_is_finished(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the second batch's two walks: one batch, its answer and its spans; no FLOPs, with a reason."""
    _stop_after(monkeypatch, 1 + 2 + 1, KeyboardInterrupt())
    run = ended(session, conduct.conduct(session))
    assert run.status == "interrupted"
    assert run.samples == 1
    assert session.read.spans is not None
    assert len(session.read.spans.windows_s) == len(session.read.hooked) == 1
    assert run.totals.flops is None
    assert run.ledger.flops.reason
    assert layerprof.load_run(session.folder).status == "interrupted"


def test_an_interrupt_in_the_walk_for_flops_leaves_no_part_of_them(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work of one batch beside calls of two would be half of what a call does: None, and how far it came."""
    _stop_after(monkeypatch, 1 + 4 + 1, KeyboardInterrupt())
    run = ended(session, conduct.conduct(session))
    assert (run.status, run.samples) == ("interrupted", 2)
    assert run.totals.flops is run.totals.flops_per_sample is None
    assert run.ledger.flops.reason == "interrupted after 1 of 2 batches"
    assert {row.flops for row in run.layers} == {None}
    assert run.ledger.span_s.total


@pytest.mark.parametrize(("traced", "kept"), [(0, False), (1, True)])
def test_an_interrupt_in_the_trace_keeps_the_batches_that_were_recorded(
    session: Session, monkeypatch: pytest.MonkeyPatch, traced: int, kept: bool
) -> None:
    """Their files are named, and their kernels in the books; without one there is no figure, not a zero."""
    _stop_after(monkeypatch, 1 + 4 + 2 + traced, KeyboardInterrupt())
    ask_setting(session, trace=True)
    run = ended(session, conduct.conduct(session))
    assert ("trace_0" in run.files) == kept
    assert "trace_1" not in run.files
    assert (run.ledger.busy_s.total is not None) == kept
    if not kept:
        assert run.ledger.busy_s.reason == "interrupted before the first batch was recorded"


def test_an_interrupt_before_the_first_answer_leaves_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to save: exit 130, and the empty folder is gone."""
    _stop_after(monkeypatch, 1, KeyboardInterrupt())
    failure = conduct.conduct(session)
    assert isinstance(failure, NothingFinishedError)
    assert failure.exit_code == 130
    with pytest.raises(NothingFinishedError):
        ended(session, failure)
    assert not session.folder.exists()


def test_a_model_that_fails_half_way_keeps_what_was_measured(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1 with a remedy; the run says that it failed and holds the first batch, with its spans."""
    _stop_after(monkeypatch, 1 + 2, RuntimeError("CUDA error: device-side assert"))
    failure = conduct.conduct(session)
    assert isinstance(failure, RunFailedError)
    assert failure.exit_code == 1
    run = ended(session, failure)
    assert run.status == "failed"
    assert run.samples == 1
    assert run.ledger.span_s.total
    assert any("device-side assert" in warning for warning in run.warnings)


def test_a_failure_in_the_first_hooked_walk_leaves_no_spans_of_zero(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bare answer is there; spans were not measured, which is not the same as none."""
    _stop_after(monkeypatch, 1 + 1, RuntimeError("the hooks do not fit"))
    run = ended(session, conduct.conduct(session))
    assert run.samples == 1
    assert run.ledger.span_s.total is None
    assert run.ledger.span_s.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (ModuleNotFoundError("No module named 'tensorboard'"), "No module named 'tensorboard'"),
    ],
)
def test_a_file_beside_the_run_that_cannot_be_written_costs_that_file(
    error: Exception, reason: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full for the summary, or no TensorBoard to write it with: the run is saved, with a warning."""

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(tensorboard, "write", full)
    run = ended(session, conduct.conduct(session))
    assert run.status == "done"
    assert "tensorboard" not in run.files
    assert "batches" in run.files
    assert reason in layerprof.load_run(session.folder).warnings[-1]


def test_a_run_that_its_folder_does_not_take_is_saved_elsewhere(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured for hours is not lost to a full disk: the message names the folder that has it."""
    (tmp_path / "spare").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spare"))
    failure = conduct.conduct(session)
    (session.folder / "run.json").mkdir()
    with pytest.raises(RunFailedError, match="could not be written") as caught:
        ended(session, failure)
    (saved,) = (tmp_path / "spare").iterdir()
    assert str(saved) in caught.value.remedy
    assert layerprof.load_run(saved).status == "done"


def _walks(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool, bool]]:
    """Record each answer from now on: the batch, whether span hooks are attached, whether logits are looked at."""
    real, seen = passes.answer, []
    block = session.subject.model.get_submodule(next(x.name for x in session.asked.layers if x.kind == "decoder_layer"))

    def answer(run: Session, batch: Any, **options: Any) -> Any:
        seen.append((batch.index, "forward" in block.__dict__, bool(options.get("probe"))))
        return real(run, batch, **options)

    monkeypatch.setattr(passes, "answer", answer)
    return seen


def test_bare_and_hooked_walks_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch by batch: bare, hooked, hooked, bare, ...; the hooks are gone in every bare walk."""
    settings = build(model="demo", dataset="coco", samples=4, max_new_tokens=1, trace=False, output=str(tmp_path / "r"))
    session = prepared(settings)
    seen = _walks(session, monkeypatch)
    passes.bare_and_latency(session)
    order = [(0, False), (0, True), (1, True), (1, False), (2, False), (2, True), (3, True), (3, False)]
    assert [(batch, hooked) for batch, hooked, _ in seen] == order
    assert (len(session.read.bare), len(session.read.hooked)) == (4, 4)
    assert session.read.spans is not None
    assert {span.batch for span in session.read.spans.spans} == {0, 1, 2, 3}


def test_a_drifting_machine_does_not_change_the_cost_of_measuring(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer takes 0.5 % longer than the one before and hooks cost 2 %: two walks apart would say 13 %."""
    clock = {"slow": 1.0}
    block = session.subject.model.get_submodule(next(x.name for x in session.asked.layers if x.kind == "decoder_layer"))
    ask(session, batches=tuple(dataclasses.replace(session.asked.batches[0], index=number) for number in range(20)))

    def answer(run: Session, batch: Any, **_: Any) -> Walked:
        clock["slow"] *= 1.005
        cost = 1.02 if "forward" in block.__dict__ else 1.0
        return Walked(1, clock["slow"] * cost, Generated(("a",), ((1,),), (1,), (False,), 0.1, ()))

    monkeypatch.setattr(passes, "answer", answer)
    passes.bare_and_latency(session)
    ratio, interval = totals.overhead(session.read.bare, session.read.hooked)
    assert ratio == pytest.approx(1.02, abs=0.0001)
    assert interval is not None
    assert 1.01 < interval[0] <= 1.02 <= interval[1] < 1.03


def test_passes_come_in_an_order_in_which_none_disturbs_the_next(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trace is last: its instrument stays attached to the process and slows what runs after it."""
    order: list[str] = []

    def noted(name: str) -> Any:
        return lambda *_: order.append(name)

    for name in ("warm_up", "bare_and_latency", "flops_pass", "trace_pass", "user_passes"):
        monkeypatch.setattr(passes, name, noted(name))
    monkeypatch.setattr(energy_pass, "run", noted("energy"))
    ask_setting(session, trace=True)
    assert conduct.conduct(session) is None
    assert order == ["warm_up", "bare_and_latency", "flops_pass", "energy", "user_passes", "trace_pass"]


def test_a_process_that_traced_a_gpu_before_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the profiler left attached is in the times; on a CPU nothing is."""
    monkeypatch.setitem(recording.SESSIONS, "cuda", 1)
    assert remarks.earlier_traces("cpu") is None
    assert "recorded a trace before" in str(remarks.earlier_traces("cuda:0"))
    monkeypatch.setitem(recording.SESSIONS, "cuda", 0)
    assert remarks.earlier_traces("cuda:0") is None


class TestWarmUp:
    """What runs before anything is measured."""

    @pytest.fixture
    def varied(self, session: Session) -> Session:
        """Make batches of the shapes a, b, a, c."""
        first = session.asked.batches[0]
        longer = {
            extra: first.tensors | {"input_ids": torch.ones(1, extra), "attention_mask": torch.ones(1, extra)}
            for extra in (7, 8, 9)
        }
        ask(
            session,
            batches=tuple(
                dataclasses.replace(first, index=number, tensors=longer[length])
                for number, length in enumerate((7, 8, 7, 9))
            ),
            max_new_tokens=11,
        )
        return session

    def _warmed(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        monkeypatch.setattr(
            passes, "answer", lambda _, batch, max_new_tokens: seen.append((batch.index, max_new_tokens))
        )
        passes.warm_up(session)
        return seen

    def test_on_a_gpu_every_shape_is_loaded(self, varied: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first batch whole, then two tokens of a batch of each other shape."""
        ask(varied, device="cuda:0")
        assert self._warmed(varied, monkeypatch) == [(0, 11), (1, 2), (3, 2)]

    def test_on_a_cpu_one_short_answer_does(self, varied: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        """A large model is slow there, and nothing is loaded per shape."""
        assert self._warmed(varied, monkeypatch) == [(0, 4)]


class TestNotFinite:
    """Logits that are no numbers."""

    def test_they_are_told_as_what_they_are(self, session: Session) -> None:
        """Weights that overflow: the first warning says in how many batches, what still holds, and what may help."""
        head = session.subject.model.get_output_embeddings().weight
        with torch.no_grad():
            head[0] = float("inf")
        session.subject.provenance.update(dtype="fp16", checkpoint_dtype="bf16")
        run = ended(session, conduct.conduct(session))
        assert run.passes["not_finite_batches"] == [0, 1]
        assert "NaN or infinite in 2 of 2 batches" in run.warnings[0]
        assert run.totals.flops

    @pytest.mark.parametrize(
        ("used", "own", "broken", "remedy"),
        [
            ("fp16", "bf16", False, "fp16 cannot hold magnitudes above 65,504: try --dtype bf16, the format of the "),
            ("fp16", "bf16", True, "try --dtype bf16, the format of the checkpoint."),
            ("fp16", "fp16", False, "try --dtype fp32."),
            ("fp16", "fp16", True, "1 of the model's tensors hold such numbers themselves"),
            ("bf16", "fp16", False, "Try --dtype fp32."),
            ("fp32", "bf16", False, "Its weights are finite"),
            ("fp32", "bf16", True, "get the checkpoint anew"),
        ],
    )
    def test_the_remedy_fits_the_cause(self, session: Session, used: str, own: str, broken: bool, remedy: str) -> None:
        """Overflow of a narrow format, or weights that are no numbers in the checkpoint's own."""
        session.subject.provenance.update(dtype=used, checkpoint_dtype=own)
        if broken:
            with torch.no_grad():
                session.subject.model.get_output_embeddings().weight[0] = float("nan")
        assert remedy in remarks.not_finite(session, 1, 2)

    def test_looking_costs_no_measured_walk_anything(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only the walk that counts FLOPs looks; finite logits are worth no word."""
        seen = _walks(session, monkeypatch)
        run = ended(session, conduct.conduct(session))
        assert [probe for _, _, probe in seen] == [False] * (1 + 4) + [True] * 2
        assert run.passes["not_finite_batches"] == []
        assert not any("NaN" in warning for warning in run.warnings)


def test_out_of_memory_names_what_to_lower(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is the settings that take memory."""
    _stop_after(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory"))
    failure = conduct.conduct(session)
    assert failure is not None
    assert "--batch-size" in failure.remedy


def test_a_pass_that_a_run_can_do_without_may_fail(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused profiler empties its column and says why; everything else stands."""

    def refuse(_: Any) -> None:
        raise PermissionError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

    monkeypatch.setattr(passes, "trace_pass", refuse)
    ask_setting(session, trace=True)
    run = ended(session, conduct.conduct(session))
    assert run.status == "done"
    assert "CUPTI" in str(run.ledger.busy_s.reason)
    assert any("CUPTI" in warning for warning in run.warnings)


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
    with pytest.raises(RequestError, match="Identity in memory") as caught:
        layerprof.profile(model=torch.nn.Identity())
    assert "LayerProfiler" in caught.value.remedy
