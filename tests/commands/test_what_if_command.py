"""`layerprof estimate --from RUN`: the question on the command line, and the questions that mean nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from sample_run import sample_run

from layerprof.cli import main
from layerprof.runs import store


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Return the folder of the sample run."""
    store.save(sample_run(), tmp_path / "run")
    return str(tmp_path / "run")


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["layerprof", "estimate", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_answer_is_json_on_request(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same figures, every row, and that it is a bound. A run.json is as good as its folder."""
    file = str(Path(folder) / "run.json")
    assert ended(monkeypatch, "--from", file, "--layers", "vision_block", "--json", "-") == 0
    got = json.loads(capsys.readouterr().out)
    assert got["bound"] is True
    assert got["totals"]["at_most_share"] == pytest.approx(0.08)
    assert [row["name"] for row in got["layers"]] == ["model.visual.blocks.0", "model.visual.blocks.1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "demo"], "--model describes an estimate without a run"),
        (["--layers", "all", "--gpu", "H200"], "--gpu describes an estimate without a run"),
        ([], "What changes in the run is not said"),
        (["--quantization-skip", "vision"], "none is asked for"),
        (["--quantization", "int4", "--speedup", "2"], "two questions"),
        (["--layers", "visoin"], "matches nothing"),
        (["--quantization", "int9"], "no format 'int9'"),
    ],
)
def test_what_means_nothing_is_one_message(
    folder: str, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, the problem and its remedy on standard error, nothing on standard output."""
    assert ended(monkeypatch, "--from", folder, *words) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert (out, len(err.strip().splitlines())) == ("", 2)


def test_a_question_about_a_run_wants_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--speedup without --from is refused."""
    assert ended(monkeypatch, "--speedup", "2") == 2
    assert "--speedup is about a measured run" in capsys.readouterr().err
