"""A run on disk is whole, comes back as it was, and says what is wrong when it cannot."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from sample_run import bare_run, large_run, sample_run, samples

from layerprof.errors import RequestError, RunFailedError
from layerprof.records import Phase, Run
from layerprof.runs import store


def refusal(path: Path) -> RequestError:
    """Return the error of loading a path; its message must have a remedy."""
    with pytest.raises(RequestError) as caught:
        store.load(path)
    assert caught.value.remedy
    return caught.value


# --- save and load ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [sample_run(), bare_run(), large_run()], ids=["full", "bare", "large"])
def test_a_run_comes_back_as_it_was(run: Run, tmp_path: Path) -> None:
    """Save, then load from the folder or from the file: equal in every field, integers still integers."""
    saved = store.save(run, tmp_path / "run")
    assert store.load(tmp_path / "run") == saved
    assert store.load(str(tmp_path / "run" / "run.json")) == saved
    assert saved.layers == run.layers
    assert isinstance(saved.ledger.flops.residual, int)


def test_the_folder_holds_the_files_that_the_run_names(tmp_path: Path) -> None:
    """run.json, layers.csv and samples.jsonl, named in `files`, and no leftover of their making."""
    saved = store.save(sample_run(), tmp_path, samples())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.csv", "run.json", "samples.jsonl"]
    assert saved.files == {"run": "run.json", "layers": "layers.csv", "samples": "samples.jsonl"}


def test_run_json_is_the_contract(tmp_path: Path) -> None:
    """Other programs read the figures by the documented names."""
    store.save(sample_run(), tmp_path)
    data = json.loads((tmp_path / "run.json").read_bytes())
    assert data["format"] == 5
    assert data["totals"]["latency_s"]["per_batch"]["median"] == 0.125
    assert data["totals"]["energy"]["per_sample"] == 5.0
    assert data["layers"][1]["span_s"] == {"total": 0.01, "median": 0.005, "p95": 0.0055}
    assert data["layers"][1]["phase"] == "vision"
    assert data["ledger"]["flops"]["rest"]["merger"] == 300_000_000


def test_layers_csv_has_a_line_per_row_in_si_units(tmp_path: Path) -> None:
    """One line per layer and phase; what was not measured is empty, what is zero is 0."""
    store.save(sample_run(), tmp_path)
    with (tmp_path / "layers.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 16
    assert (rows[1]["name"], rows[1]["phase"], rows[1]["span_median_s"]) == ("model.visual.blocks.0", "vision", "0.005")
    norm = next(row for row in rows if row["kind"] == "norm")
    assert (norm["flops"], norm["energy_j"], norm["energy_quality"]) == ("0", "", "unavailable")


def test_samples_come_back(tmp_path: Path) -> None:
    """Samples are one JSON line each, also with line breaks and foreign letters in them."""
    store.save(sample_run(), tmp_path, samples())
    assert store.load_samples(tmp_path) == samples()
    assert len((tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert store.load_samples(tmp_path / "run.json") == samples()


def test_a_run_without_samples_has_none(tmp_path: Path) -> None:
    """No samples file, no samples, no error."""
    store.save(sample_run(), tmp_path)
    assert store.load_samples(tmp_path) == ()


def test_a_broken_sample_line_is_named(tmp_path: Path) -> None:
    """The error says which line of which file."""
    store.save(sample_run(), tmp_path, samples())
    with (tmp_path / "samples.jsonl").open("a") as lines:
        lines.write('{"id": 3}\n')
    with pytest.raises(RequestError, match=r"line 3"):
        store.load_samples(tmp_path)


@dataclass(frozen=True)
class _Reading:
    table: dict[tuple[str, Phase], float]
    shape: tuple[int, ...]


def test_whatever_an_instrument_leaves_is_stored(tmp_path: Path) -> None:
    """Dataclasses, tuple keys, numpy, paths and sets become plain JSON."""
    own = _Reading({("lm_head", Phase.DECODE): 1.5}, (2, 3))
    odd = {"own": own, "n": np.float32(0.5), "a": np.arange(3), "where": Path("x"), "tags": {"b", "a"}, "by": {7: True}}
    store.save(sample_run(passes=odd), tmp_path)
    assert store.load(tmp_path).passes == {
        "own": {"table": {"lm_head decode": 1.5}, "shape": [2, 3]},
        "n": 0.5,
        "a": [0, 1, 2],
        "where": "x",
        "tags": ["a", "b"],
        "by": {"7": True},
    }


def test_a_reading_that_holds_itself_costs_no_run(tmp_path: Path) -> None:
    """A cycle or a bottomless nest in what a user's hook read ends where it begins; all else is stored."""
    cycle: dict[str, object] = {"kept": 1}
    cycle["again"] = cycle
    deep: list[object] = []
    for _ in range(3000):
        deep = [deep]
    shared = [1, 2]
    store.save(sample_run(passes={"cycle": cycle, "deep": deep, "twice": [shared, shared]}), tmp_path)
    passes = store.load(tmp_path).passes
    assert passes["cycle"]["kept"] == 1
    assert "holds itself" in passes["cycle"]["again"]
    assert "too deep" in str(passes["deep"])
    assert passes["twice"] == [[1, 2], [1, 2]]


def test_numbers_that_json_lacks_become_null_and_are_named(tmp_path: Path) -> None:
    """NaN never makes a run unreadable, and never vanishes silently."""
    store.save(sample_run(passes={"logits": {"max": float("nan")}}), tmp_path)
    loaded = store.load(tmp_path)
    assert loaded.passes == {"logits": {"max": None}}
    assert "passes.logits.max" in loaded.warnings[-1]


def test_flops_beyond_64_bits_are_exact(tmp_path: Path) -> None:
    """A long run on a large machine counts past 2**64; no digit is lost."""
    huge = 2**70 + 1
    totals = sample_run().totals.model_copy(update={"flops": huge})
    store.save(sample_run(totals=totals), tmp_path)
    assert store.load(tmp_path).totals.flops == huge


def test_text_with_broken_characters_is_stored(tmp_path: Path) -> None:
    """Half a surrogate pair in an answer costs that sign only."""
    store.save(sample_run(warnings=("cut \ud800 off, ü kept",)), tmp_path)
    assert store.load(tmp_path).warnings == ("cut ? off, ü kept",)


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fills up, the former content stays, no part file stays, and the user is told."""
    store.save(sample_run(), tmp_path)
    before = (tmp_path / "run.json").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailedError, match="No space left"):
        store.save(bare_run(), tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.csv", "run.json"]


# --- what cannot be loaded --------------------------------------------------------------------------------------


def test_no_run_at_all(tmp_path: Path) -> None:
    """A path that does not exist is named."""
    assert "nowhere" in refusal(tmp_path / "nowhere").problem


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    """A folder without run.json says so."""
    assert "run.json" in refusal(tmp_path).problem


def test_a_folder_of_runs_names_them(tmp_path: Path) -> None:
    """Giving the parent of runs answers with runs that can be given instead."""
    store.save(sample_run(), tmp_path / "first")
    store.save(sample_run(), tmp_path / "second")
    error = refusal(tmp_path)
    assert "2 runs" in error.problem
    assert str(tmp_path / "second") in error.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not JSON"),
        (b"[1, 2]", "not a layerprof run"),
        (b'{"traceEvents": []}', "not a layerprof run"),
        (b'{"format": "1", "ledger": {}}', "not a layerprof run"),
        (b'{"format": 1, "ledger": {}}', "complete run"),
    ],
)
def test_files_that_are_no_run_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    """Empty, cut off, binary, foreign and incomplete files each end in one sentence and a remedy."""
    (tmp_path / "run.json").write_bytes(content)
    assert said in refusal(tmp_path).problem


def test_a_cut_off_run_is_refused(tmp_path: Path) -> None:
    """Half a run.json, as a full disk leaves it, is not read as a smaller run."""
    store.save(sample_run(), tmp_path)
    file = tmp_path / "run.json"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "cut off" in refusal(tmp_path).problem


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    """A file of a later layerprof is not half understood."""
    store.save(sample_run(), tmp_path)
    file = tmp_path / "run.json"
    file.write_text(file.read_text().replace('"format": 5', '"format": 99', 1))
    error = refusal(tmp_path)
    assert "99" in error.problem
    assert "pgrade" in error.remedy


def test_a_field_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    """A file edited by hand is refused with the field's name."""
    store.save(sample_run(), tmp_path)
    data = json.loads((tmp_path / "run.json").read_bytes())
    data["totals"]["flops"] = "many"
    (tmp_path / "run.json").write_text(json.dumps(data))
    assert "totals.flops" in refusal(tmp_path).problem


# --- folders ----------------------------------------------------------------------------------------------------


def test_the_default_folder_names_time_model_and_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in UTC whatever the zone, the label as a file name, below traces/; taken names are numbered."""
    monkeypatch.chdir(tmp_path)
    now = datetime(2026, 1, 2, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    first = store.prepare_folder(None, "Qwen/Qwen2.5-VL 3B-textvqa", now)
    assert first == Path("traces/20260101T233000Z-qwen2.5-vl-3b-textvqa")
    assert first.is_dir()
    assert store.prepare_folder(None, "Qwen/Qwen2.5-VL 3B-textvqa", now) == first.with_name(first.name + "-2")


@pytest.mark.parametrize("label", ["", "///", "..", "ü/日本", "-" * 300])
def test_any_label_gives_a_folder_inside_traces(label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No label escapes the folder, hides it, or is too long for a file system."""
    monkeypatch.chdir(tmp_path)
    place = store.prepare_folder(None, label, datetime(2026, 1, 1, tzinfo=UTC))
    assert place.parent == Path("traces")
    assert place.is_dir()
    assert len(place.name) < 120


def test_a_new_or_empty_folder_is_taken(tmp_path: Path) -> None:
    """Made when missing, with its parents; an empty one is used as it is."""
    place = tmp_path / "a" / "b"
    assert store.prepare_folder(place) == place
    assert store.prepare_folder(str(place)) == place
    assert list(place.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    """A run never writes over another."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="not empty"):
        store.prepare_folder(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_file_in_the_way_is_refused(below: str, tmp_path: Path) -> None:
    """Naming a file, or something below a file, as the folder."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="a file"):
        store.prepare_folder(tmp_path / "file" / below)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, in which not even root may make a folder")
def test_a_folder_that_cannot_be_written_to_is_refused() -> None:
    """Found out by trying, since permission bits do not tell."""
    with pytest.raises(RequestError, match="cannot be written to"):
        store.prepare_folder("/proc/layerprof")


def test_only_an_empty_folder_is_discarded(tmp_path: Path) -> None:
    """A folder prepared for nothing goes away; one with a file in it stays; one that is gone is no error."""
    empty, full = tmp_path / "empty", tmp_path / "full"
    for place in (empty, full):
        store.prepare_folder(place)
    (full / "x").touch()
    for place in (empty, full, tmp_path / "gone"):
        store.discard_folder(place)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_the_folders_made_for_a_run_that_never_was_are_removed(tmp_path: Path) -> None:
    """A refused request leaves neither its folder nor those above it; a folder that was there before stays."""
    (tmp_path / "mine").mkdir()
    folder = store.prepare_folder(tmp_path / "mine" / "deep" / "er")
    store.discard_folder(folder)
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_device_is_written_to_and_never_replaced() -> None:
    """A report to a pipe or a device goes through it; a rename would put a file in its place."""
    reader, writer = os.pipe()
    try:
        store.write_atomic(Path(f"/dev/fd/{writer}"), b"report")
        assert os.read(reader, 100) == b"report"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_link_keeps_its_target(tmp_path: Path) -> None:
    """What a link points to is written, not the link replaced."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link.md").symlink_to(tmp_path / "there" / "report.md")
    store.write_atomic(tmp_path / "link.md", b"report")
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "there" / "report.md").read_bytes() == b"report"


def test_a_run_that_was_moved_says_where_it_is(tmp_path: Path) -> None:
    """The commands that a report suggests work on a run that was copied or renamed."""
    store.save(sample_run(settings={"output": "elsewhere/run"}), tmp_path)
    assert store.load(tmp_path).settings["output"] == str(tmp_path)
