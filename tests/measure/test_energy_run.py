"""A whole run on a card whose power is known: what stands in the run's files and reports, and whether it closes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from math import fsum
from pathlib import Path

import pytest
from fake_card import (
    GAP_S,
    IDLE_W,
    OTHERS_S,
    OTHERS_W,
    SECONDS,
    TOKENS,
    WARM,
    WATTS,
    FakeCard,
    Waits,
    profiled,
    session_on,
)
from rich.console import Console

import layerprof
from layerprof.errors import RequestError
from layerprof.records import LayerRow, Phase, Quality, Run
from layerprof.report import balance, kinds, write

SAMPLES, NEW_TOKENS = 2, 4


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    """Yield a monkeypatch for the module."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def replayed(patched: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the saved run of the bundled model with every layer replayed, the host's counter beside."""
    folder = tmp_path_factory.mktemp("energy") / "run"
    profiled(session_on(FakeCard(host=True), patched, folder, energy="replay", energy_budget=400.0))
    return layerprof.load_run(folder)


def drawn(row: LayerRow) -> float:
    """Joules of one call by the card's table; prefill takes its time by the mean prompt's tokens."""
    joules = WATTS.get(row.kind, OTHERS_W) * SECONDS.get(row.kind, OTHERS_S)
    if row.phase is Phase.PREFILL and row.kind != "lm_head":  # it scores one position
        joules *= 101 / TOKENS
    return joules


def test_every_row_has_the_joules_that_its_calls_drew(replayed: Run) -> None:
    """Watts times seconds of each layer's kind, within 1 %: gross, above the idle power, and with warm weights."""
    for row in replayed.layers:
        assert row.energy_j == pytest.approx(drawn(row) * row.calls, rel=0.015), row.name
        assert row.energy_quality is Quality.REPLAYED
        assert row.energy_source == "nvml_counter"
        seconds = drawn(row) / WATTS.get(row.kind, OTHERS_W)
        assert row.energy_active_j == pytest.approx((drawn(row) - IDLE_W * seconds) * row.calls, rel=0.03)
    warm = [row for row in replayed.layers if row.energy_hot_j is not None]
    assert {row.kind for row in warm} == {row.kind for row in replayed.layers}
    for row in warm:
        assert row.energy_hot_j == pytest.approx(WARM * drawn(row) * row.calls, rel=0.015)


def test_the_account_adds_up_and_passes_by_its_rule(replayed: Run) -> None:
    """Parts, gaps and residual are the total; the verdict is that of the rule, computed here."""
    account = replayed.energy_closure
    assert account is not None
    assert account.parts_j + account.gap_j + account.residual_j == pytest.approx(account.total_j, rel=1e-9)
    assert account.parts_j == pytest.approx(fsum(row.energy_j or 0.0 for row in replayed.layers), rel=1e-9)
    gaps = SAMPLES * NEW_TOKENS * GAP_S * IDLE_W
    assert account.gap_j == pytest.approx(gaps, rel=0.01)
    low, high = account.residual_ci95
    allowed = max(0.05 * account.total_j, (high - low) / 2)
    assert account.passed is (abs(account.residual_j) <= allowed)
    assert account.passed
    books = replayed.ledger.energy_j
    assert books.layers is not None
    assert books.layers + fsum(books.rest.values()) + (books.residual or 0.0) == pytest.approx(books.total, rel=1e-9)
    assert books.total == pytest.approx(account.total_j)


def test_end_to_end_joules_are_told_by_sample_token_stage_and_host(replayed: Run) -> None:
    """The whole is what the layers and gaps drew; stages add up to it; the host stands apart."""
    energy = replayed.totals.energy
    expected = fsum(drawn(row) * row.calls for row in replayed.layers) + SAMPLES * NEW_TOKENS * GAP_S * IDLE_W
    assert energy.joules is not None
    assert energy.by_phase is not None
    assert energy.joules == pytest.approx(expected, rel=0.01)
    assert energy.per_sample == pytest.approx(expected / SAMPLES, rel=0.01)
    assert energy.per_output_token == pytest.approx(expected / (SAMPLES * NEW_TOKENS), rel=0.01)
    assert fsum(energy.by_phase.values()) == pytest.approx(expected, rel=0.01)
    assert energy.mean_power_w is not None
    assert energy.host_joules is not None
    # The processor of the card idles at 40 W all the while.
    assert energy.host_joules / energy.joules == pytest.approx(40.0 / energy.mean_power_w, rel=0.01)


def test_layers_that_wait_for_their_host_close_however_fast_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card waits 4.8 times as long as it works in the latency pass, thrice under the counter, 6 times in replay.

    A row has the joules of its work and those of waiting thrice that time, as in the window that the books are of.
    """
    waits = Waits(brief=0.05, latency=4.8, counter=3.0, loop=6.0)
    session = session_on(FakeCard(waits=waits), monkeypatch, tmp_path / "run", energy="replay", energy_budget=120.0)
    run = profiled(session)
    account = run.energy_closure
    assert account is not None
    assert account.pace == pytest.approx(4.0 / 5.8, rel=0.001), "1 + 3 over 1 + 4.8 of the work's time"
    assert abs(account.residual_j) < 0.01 * account.total_j
    assert account.passed
    assert account.unlike == len(run.layers)
    assert account.unlike_ratios == pytest.approx((7 / 4, 7 / 4), rel=0.02)
    for row in run.layers:
        work_j, work_s = drawn(row) * waits.brief, drawn(row) / WATTS.get(row.kind, OTHERS_W) * waits.brief
        assert row.energy_j == pytest.approx(row.calls * (work_j + IDLE_W * 3 * work_s), rel=0.03), row.name
        assert "of its time in the model" in str(row.energy_reason)
    told = " ".join(balance.books(run)[-1].notes)
    assert "0.69 of the latency pass's time" in told
    assert "waiting at 80.0 W" in told
    assert any("more than one speed" in warning for warning in run.warnings)


def test_scaled_rows_are_an_extra_that_closes(replayed: Run) -> None:
    """`energy_reconciled_j` adds up with the gaps scaled alike to the total; `energy_j` stays as measured."""
    account = replayed.energy_closure
    assert account is not None
    scale = account.total_j / (account.parts_j + account.gap_j)
    for row in replayed.layers:
        assert row.energy_reconciled_j == pytest.approx((row.energy_j or 0.0) * scale, rel=1e-6)


def test_the_files_hold_the_instruments_and_every_replayed_row(replayed: Run) -> None:
    """run.json has the sensor, the windows with their flags, and why measuring ended; energy.json a line a row."""
    facts = replayed.passes["energy"]
    assert facts["instrument"]["source"] == "nvml_counter"
    assert facts["instrument"]["windows"]["end to end"]["estimator"] == "pulse"
    assert facts["instrument"]["host"]["source"] == "rapl_powercap"
    assert facts["instrument"]["rest_w"] == pytest.approx(IDLE_W, rel=0.01), "this card is idle at once"
    assert facts["instrument"]["windows"]["end to end"]["baseline_w"] == pytest.approx(IDLE_W, rel=0.01)
    assert facts["instrument"]["host"]["rest_w"] == pytest.approx(40.0, rel=0.01)
    assert facts["replay"]["context_w"]["watts"] == pytest.approx(IDLE_W, rel=0.01)
    assert facts["replay"]["stopped"]
    folder = Path(replayed.settings["output"])
    beside = json.loads((folder / replayed.files["energy"]).read_text())
    assert len(beside["replay"]["rows"]) == len(replayed.layers)
    captured = beside["replay"]["captured"]
    assert captured["mean_prompt_tokens"] == pytest.approx(sum(b[1] for b in _batches(folder)) / SAMPLES)


def _batches(folder: Path) -> list[tuple[int, int]]:
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return [(sample["batch"], sample["prompt_tokens"]) for sample in samples]


@pytest.mark.parametrize("name", ["terminal", "markdown", "html"])
def test_every_report_gives_the_verdict(replayed: Run, name: str, tmp_path: Path) -> None:
    """Pass or fail with the residual's interval, what is allowed, how many rows have a figure, why it ended."""
    text = shown(replayed, name, tmp_path)
    for words in ("closes, residual", "5.0 % allowed", f"all {len(replayed.layers)} rows have a figure", "ended"):
        assert words in text, words


def shown(run: Run, name: str, tmp_path: Path) -> str:
    """Return a report as one line of text."""
    if name == "terminal":
        out = io.StringIO()
        write.write(run, kinds.run(), "terminal", None, Console(file=out, width=120))
        return " ".join(out.getvalue().split())
    file = tmp_path / "report"
    write.write(run, kinds.run(), name, file, Console(file=io.StringIO()))
    return " ".join(file.read_text().replace("\\_", "_").split())


def test_no_joules_without_their_label(replayed: Run, tmp_path: Path) -> None:
    """In the files that programs read, each row with joules says how they were obtained and by which sensor."""
    rows = list(csv.DictReader(io.StringIO((Path(replayed.settings["output"]) / "layers.csv").read_text())))
    plain = json.loads(_file(replayed, "json", tmp_path))["layers"]
    assert len(rows) == len(plain) == len(replayed.layers)
    for row in (*rows, *plain):
        assert row["energy_j"] not in ("", None)
        assert row["energy_quality"] == "replayed"
        assert row["energy_source"] == "nvml_counter"
    for name in ("terminal", "markdown", "html"):
        assert "replayed" in shown(replayed, name, tmp_path)
        assert "nvml_counter" in shown(replayed, name, tmp_path)


def _file(run: Run, name: str, tmp_path: Path) -> str:
    file = tmp_path / f"run.{name}"
    write.write(run, kinds.run(), name, file, Console(file=io.StringIO()))
    return file.read_text()


def test_work_that_has_no_row_is_a_residual_that_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 W for 0.5 s in every forward pass, launched by no layer: the books stay open by that much, and say so."""
    card = FakeCard()
    session = session_on(card, monkeypatch, tmp_path / "run", energy="replay", energy_budget=120.0)
    session.subject.model.register_forward_hook(lambda *_: card.machine.run(500.0, 0.5))
    run = profiled(session)
    account = run.energy_closure
    assert account is not None
    # Gaps are charged at the power of a waiting device, so that of the residual is what was above it.
    hidden = SAMPLES * NEW_TOKENS * 0.5 * (500.0 - IDLE_W)
    assert account.residual_j == pytest.approx(hidden, rel=0.02)
    assert not account.passed
    verdicts = [balance.verdict(book) for book in balance.books(run) if book.name == "energy_j"]
    assert verdicts[0].startswith("does not close, residual +")


def test_an_interrupted_replay_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is saved as interrupted, with the rounds that were done; what has no figure is named in the verdict."""
    card = FakeCard()
    session = session_on(card, monkeypatch, tmp_path / "run", energy="replay", energy_budget=400.0)
    card.interrupt_after = 230.0
    profiled(session)
    run = layerprof.load_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert run.energy_closure is not None
    assert run.energy_closure.stopped == "interrupted"
    assert run.totals.energy.joules is not None
    for row in run.layers:
        assert (row.energy_j is None) is (row.energy_quality is Quality.UNAVAILABLE)


def test_replay_without_a_sensor_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing, what would help, and no folder left behind."""
    with pytest.raises(RequestError, match="no counter here; measure on bare metal") as refused:
        session_on(FakeCard(sensor=False), monkeypatch, tmp_path / "run", energy="replay")
    assert "--energy auto" in refused.value.remedy
    assert not (tmp_path / "run").exists()


def test_without_a_sensor_no_joules_and_their_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None with the sensor's reason and remedy in totals and rows, and everything else as usual."""
    run = profiled(session_on(FakeCard(sensor=False), monkeypatch, tmp_path / "run", samples=1))
    assert run.totals.energy.joules is None
    assert "measure on bare metal" in (run.totals.energy.reason or "")
    assert run.energy_closure is None
    assert all(row.energy_j is None and row.energy_reason for row in run.layers)
    assert run.totals.flops
