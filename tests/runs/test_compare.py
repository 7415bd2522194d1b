"""Comparisons against sums done by hand: two runs in pairs, settings, notes, sweeps, broken files."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_run import sample_run
from sample_sweep import run, save_run

from layerprof.errors import RequestError
from layerprof.runs import compare, store


def test_two_runs_are_compared_in_pairs(tmp_path: Path) -> None:
    """Seconds of a sample come from the batches: 0.5 s of 4 samples before, 0.6 s after, ratio 1.2 in both batches."""
    save_run(run(0.25), tmp_path / "a", (0.2, 0.3))
    save_run(run(0.3, wer=0.5, joules=24.0, batch_size=4), tmp_path / "b", (0.24, 0.36))
    (found,) = compare.compare(tmp_path / "a", tmp_path / "b").cells
    changes = {change.quantity: change for change in found.totals}
    latency = changes["latency per sample"]
    assert (latency.before, latency.after) == pytest.approx((0.125, 0.15))
    assert latency.n == 2
    assert latency.ci95 == pytest.approx((1.2, 1.2))
    assert changes["energy per sample"].value == pytest.approx(1.2)
    assert changes["FLOPs per sample"].percent == pytest.approx(0.0)
    assert changes["word error rate"].value == pytest.approx(0.25)
    layer = next(one for one in found.layers if one.span.n)
    assert (layer.name, layer.phase.value) == ("model.language_model.layers.0", "decode")
    assert layer.span.value == pytest.approx(1.2)
    assert layer.span.before == pytest.approx(0.05 / 4)
    assert found.same_answers == 1.0
    assert found.settings == {"batch_size": (2, 4)}
    assert found.environment == {}
    assert {change.quantity for change in found.regressions(5)} >= {"latency per sample", "energy per sample"}
    assert found.regressions(30) == []


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"wer": "words-1"}, {"wer": "words-1"}, {}),
        ({"wer": "words-1"}, {"wer": "words-2"}, {"normalisation.wer": ("words-1", "words-2")}),
        (None, {"wer": "words-1"}, {}),
    ],
    ids=["same", "other", "an older run does not say"],
)
def test_rates_by_other_rules_are_told(
    first: dict[str, str] | None, second: dict[str, str], told: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    """Rates compare where answers were normalised by the same rules; what a run does not say is no difference."""
    for name, rules in (("a", first), ("b", second)):
        known = sample_run().settings | ({"normalisation": rules} if rules else {})
        store.save(sample_run(settings=known), tmp_path / name)
    (found,) = compare.compare(tmp_path / "a", tmp_path / "b").cells
    assert found.settings == told


def test_formats_of_weights_are_told_in_one_phrase(tmp_path: Path) -> None:
    """Beside the setting; a run from before there were any differs in nothing from one of ordinary numbers."""
    stored = {"format": "nf4", "package": "bitsandbytes", "package_version": "0.50", "scheme": "4-bit normal floats"}
    told = "nf4 by bitsandbytes 0.50 (4-bit normal floats), 64 layers, 3 left as they are"
    plain = sample_run()
    for name, how, what in (("a", "none", None), ("b", "nf4", stored | {"layers": 64, "left": 3, "run_as": None})):
        settings, model = plain.settings | {"quantization": how}, plain.model | {"quantization": what}
        store.save(sample_run(settings=settings, model=model), tmp_path / name)
    store.save(plain, tmp_path / "old")
    (found,) = compare.compare(tmp_path / "a", tmp_path / "b").cells
    assert found.settings == {"quantization": ("none", "nf4"), "model.quantization": (None, told)}
    (same,) = compare.compare(tmp_path / "old", tmp_path / "a").cells
    assert same.settings == {}


def test_runs_without_their_batches_are_compared_by_medians(tmp_path: Path) -> None:
    """A run of an older layerprof has no batches.csv.

    The difference is there, an interval is not, and a note says why.
    """
    for name in ("a", "b"):
        store.save(sample_run(), tmp_path / name)
    (found,) = compare.compare(tmp_path / "a", tmp_path / "b").cells
    latency = next(change for change in found.totals if change.quantity.startswith("latency"))
    assert latency.value == pytest.approx(1.0)
    assert latency.ci95 is None
    assert any("samples.jsonl" in note for note in found.notes)


def test_runs_of_different_samples_are_not_paired(tmp_path: Path) -> None:
    """Without a common sample there is no pair, and the note says so."""
    save_run(run(0.25), tmp_path / "a", (0.2, 0.3))
    save_run(run(0.25), tmp_path / "b", (0.2, 0.3))
    file = tmp_path / "b" / "samples.jsonl"
    file.write_text(file.read_text().replace('"key":"', '"key":"other-'))
    (found,) = compare.compare(tmp_path / "a", tmp_path / "b").cells
    assert found.shared_samples == 0
    assert found.same_answers is None
    assert any("different samples" in note for note in found.notes)


def test_a_broken_batches_file_names_the_line(tmp_path: Path) -> None:
    """A cut-off file is refused, not read as if it were whole."""
    save_run(run(0.25), tmp_path / "a", (0.2, 0.3))
    file = tmp_path / "a" / "batches.csv"
    file.write_text(file.read_text() + "2,2\n")
    with pytest.raises(RequestError, match="line 4"):
        compare.compare(tmp_path / "a", tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("batches.csv", b"batch,rows,latency_s,first_token_s,new_tokens\n0,two,1,1,3\n", 2),
        ("spans.csv", b"name,phase,batch,calls,span_s\nx,decode,0,1,2\nx,nowhere,0,1,2\n", 3),
        ("spans.csv", b"\xff\xfe\x00", 2),
    ],
)
def test_files_beside_a_run_that_hold_something_else_are_refused(
    name: str, content: bytes, line: int, tmp_path: Path
) -> None:
    """A number or phase that is none and bytes that are no text end with the file, the line and a remedy."""
    save_run(run(0.25), tmp_path / "a", (0.2, 0.3))
    (tmp_path / "a" / name).write_bytes(content)
    with pytest.raises(RequestError, match=f"{name}, line {line}") as caught:
        compare.compare(tmp_path / "a", tmp_path / "a")
    assert caught.value.remedy
