"""The passes of a run: their order, what warms up before them, and logits that are no numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from layerprof.hooks import recording
from listed_batches import first_batch, listed
from sessions import ask, ask_setting, ended, prepared, two_batches

from layerprof.books import totals
from layerprof.data.batching import Batch
from layerprof.measure import answering, bare_walk, conduct, energy_pass, passes, remarks, warm_up, work_pass
from layerprof.measure.session import Session
from layerprof.readings import Generated, Walked
from layerprof.settings import build


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Prepare a run of two batches."""
    return two_batches(tmp_path / "r")


def _walks(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool, bool]]:
    """Record each answer from now on: the batch, whether span hooks are attached, whether logits are looked at."""
    real, seen = answering.answer, []
    block = session.subject.model.get_submodule(next(x.name for x in session.asked.layers if x.kind == "decoder_layer"))

    def answer(run: Session, batch: Any, **options: Any) -> Any:
        seen.append((batch.index, "forward" in block.__dict__, bool(options.get("probe"))))
        return real(run, batch, **options)

    monkeypatch.setattr(answering, "answer", answer)
    return seen


def test_bare_and_hooked_walks_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch by batch: bare, hooked, hooked, bare, ...; the hooks are gone in every bare walk."""
    settings = build(model="demo", dataset="coco", samples=4, max_new_tokens=1, trace=False, output=str(tmp_path / "r"))
    session = prepared(settings)
    seen = _walks(session, monkeypatch)
    bare_walk.bare_and_latency(session)
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
    first = first_batch(session)
    ask(session, batches=listed(dataclasses.replace(first, index=number) for number in range(20)), instrumented=20)

    def answer(run: Session, batch: Any, **_: Any) -> Walked:
        clock["slow"] *= 1.005
        cost = 1.02 if "forward" in block.__dict__ else 1.0
        return Walked(1, clock["slow"] * cost, Generated(("a",), ((1,),), (1,), (False,), 0.1, ()))

    monkeypatch.setattr(answering, "answer", answer)
    bare_walk.bare_and_latency(session)
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

    places = {"warm_up": warm_up, "bare_and_latency": bare_walk, "flops_pass": work_pass}
    for name in (*places, "trace_pass", "user_passes"):
        monkeypatch.setattr(places.get(name, passes), name, noted(name))
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
        first = first_batch(session)
        longer = {
            extra: first.tensors | {"input_ids": torch.ones(1, extra), "attention_mask": torch.ones(1, extra)}
            for extra in (7, 8, 9)
        }
        ask(
            session,
            batches=listed(
                dataclasses.replace(first, index=number, tensors=longer[length])
                for number, length in enumerate((7, 8, 7, 9))
            ),
            max_new_tokens=11,
        )
        return session

    def _warmed(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []

        def answered(_: Session, batch: Batch, *, max_new_tokens: int, fixed: bool) -> None:
            assert not fixed, "answers may end where they end"
            seen.append((batch.index, max_new_tokens))

        monkeypatch.setattr(answering, "answer", answered)
        warm_up.warm_up(session)
        for batch in session.asked.batches.walk():
            warm_up.ready(session, batch, cast("Any", None), cast("Any", None), 0)
        return seen

    def test_on_a_gpu_every_shape_is_loaded(self, varied: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first batch whole, then two tokens of a batch of each other shape when it is met."""
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
