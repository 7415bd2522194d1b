"""A run with `--optimization graph` from its request to its books, on a card that captures on the CPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_graphs import FakeCard
from sessions import ended, prepared

from layerprof.errors import RequestError, RunFailedError
from layerprof.machine import placement
from layerprof.measure import answering, bare_walk, check, conduct, optimize, passes, warm_up
from layerprof.measure.session import Session
from layerprof.models import decode_graph
from layerprof.records import Phase, Run
from layerprof.settings import build

NEW = 6
DECODER = "model.language_model.layers.0"


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[FakeCard]:
    """Let graphs be captured on the CPU; return the cards that were used."""
    made: list[FakeCard] = []

    def card(device: Any) -> FakeCard:
        made.append(FakeCard(device))
        return made[-1]

    monkeypatch.setattr(placement, "why_no_graphs", lambda on: "")
    monkeypatch.setattr(decode_graph, "TorchCard", card)
    return made


def session(folder: Path, **changes: Any) -> Session:
    """Prepare a run of the bundled model: three samples in batches of two."""
    asked: dict[str, Any] = {"samples": 3, "batch_size": 2, "max_new_tokens": NEW, "energy": "off", "trace_batches": 1}
    return prepared(
        build(model="demo", optimization="graph", dataset="coco", device="cpu", output=str(folder), **asked | changes)
    )


def test_a_run_replays_its_steps_and_closes_its_books(cards: list[FakeCard], tmp_path: Path) -> None:
    """Answers are those of sdpa; FLOPs are of every step, prefill has spans, and the run says what was captured."""
    made = session(tmp_path / "graph", fixed_tokens=True)
    assert conduct.conduct(made) is None
    run = ended(made, None)
    plain = prepared(
        build(
            model="demo",
            optimization="sdpa",
            dataset="coco",
            device="cpu",
            samples=3,
            batch_size=2,
            max_new_tokens=NEW,
            fixed_tokens=True,
            energy="off",
            trace=False,
            output=str(tmp_path / "plain"),
        )
    )
    bare_walk.bare_and_latency(plain)
    answers = [walked.generated.answers for walked in made.read.bare]
    assert answers == [walked.generated.answers for walked in plain.read.bare]
    assert not [told for told in run.warnings if "captured" in told or "otherwise" in told]
    # Two shapes of batches, captured for the bare pass, under the clock, and (of the traced batch) in the recording.
    assert run.passes["graph"]["graphs"] == 2
    assert len(cards[0].programs) == 2 + 2 + 1
    assert cards[0].warm_ups == 2
    rows = {(row.name, row.phase): row for row in run.layers}
    assert rows[DECODER, Phase.DECODE].flops
    assert rows[DECODER, Phase.PREFILL].span_s
    assert run.ledger.flops.residual == 0
    assert placed(run) == pytest.approx(run.ledger.span_s.total, rel=1e-6)


def placed(run: Run) -> float:
    """Add up the books of time."""
    column = run.ledger.span_s
    return float(column.layers or 0) + sum(column.rest.values()) + float(column.residual or 0)


def test_steps_are_counted_though_no_layer_is_called(cards: list[FakeCard], tmp_path: Path) -> None:
    """The head's calls in decode are steps 1 to the last, each in the phase decode; prefill's are not among them."""
    made = session(tmp_path, fixed_tokens=True)
    with optimize.optimized(made):
        warm_up.warm_up(made)
        bare_walk.bare_and_latency(made)
    assert made.read.spans
    head = Counter((s.batch, s.phase, s.step) for s in made.read.spans.spans if s.layer == "lm_head")
    expected = [(batch, Phase.DECODE, step) for batch in range(2) for step in range(1, NEW)]
    assert head == Counter([*((batch, Phase.PREFILL, 0) for batch in range(2)), *expected])


def test_a_trace_captures_inside_its_recording(cards: list[FakeCard], tmp_path: Path) -> None:
    """Each recording has a capture with the layers' ranges open in decode, once; replays open none."""
    import gzip
    import json

    made = session(tmp_path, trace_batches=2, fixed_tokens=True)
    with optimize.optimized(made):
        warm_up.warm_up(made)
        bare_walk.bare_and_latency(made)
        passes.trace_pass(made)
    for number in range(2):
        with gzip.open(tmp_path / "trace" / f"batch{number}.json.gz") as stream:
            names = Counter(
                event["name"].partition("#")[0] + event["name"].rpartition("|")[2]
                for event in json.load(stream)["traceEvents"]
                if event["name"].startswith("lp:")
            )
        assert names[f"lp:{DECODER}decode"] == 1
        assert names["lp:lm_headdecode"] == NEW - 1


def test_a_user_hook_sees_every_layer_called(cards: list[FakeCard], tmp_path: Path) -> None:
    """What a hook of one's own attaches to runs call by call, as it was written."""
    made = session(tmp_path, fixed_tokens=True)
    fired: list[int] = []
    with optimize.optimized(made):
        warm_up.warm_up(made)
        handle = made.subject.model.get_submodule(DECODER).register_forward_hook(lambda *_: fired.append(1))
        with optimize.called(made):
            answering.walk(made, "own")
        handle.remove()
    assert len(fired) == 2 * NEW


def test_an_answer_of_one_token_has_no_step_to_capture(cards: list[FakeCard], tmp_path: Path) -> None:
    """Its figures would be those of an eager run."""
    made = session(tmp_path, max_new_tokens=1)
    failure = conduct.conduct(made)
    assert isinstance(failure, RunFailedError)
    assert "Nothing was captured" in failure.problem
    assert "--max-new-tokens 2" in failure.remedy


def test_late_captures_are_told(cards: list[FakeCard], tmp_path: Path) -> None:
    """A step whose shape the warm-up did not have is captured under the clock, and the run says so."""
    made = session(tmp_path)
    with optimize.optimized(made), optimize.none_captured_late(made):
        answering.walk(made, "measured")
    assert made.read.warnings == ["2 decode steps were captured inside the measured passes, whose times hold that."]


def test_without_a_gpu_it_is_refused(tmp_path: Path) -> None:
    """Before anything is loaded, with why and what to do."""
    with pytest.raises(RequestError) as caught:
        check.check(build(model="demo", optimization="graph", device="cpu", output=str(tmp_path)))
    assert caught.value.problem.startswith("--optimization graph needs an NVIDIA GPU: CUDA graphs are captured")
    assert caught.value.remedy == "Use --optimization sdpa."
