"""The flops pass counts a signature once, and its sum is that of every batch counted."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
import torch
from layerprof.hooks.shapes import ShapesHook
from sessions import prepared

from layerprof.measure import answering, work_pass
from layerprof.measure.session import Session
from layerprof.readings import Generated, Walked, WorkReading
from layerprof.settings import build


def answered(folder: Path, **asked: Any) -> Session:
    """Prepare a run of the bundled model whose batches were answered without any hook."""
    fixed = {"model": "demo", "trace": False, "image_size": 56, "max_new_tokens": 4, "output": str(folder / "r")}
    session = prepared(build(**fixed | asked))
    for batch in session.asked.batches.walk():
        session.read.questions.append(batch.questions())
        session.read.bare.append(answering.answer(session, batch))
    return session


def every_batch(session: Session) -> WorkReading:
    """Count each batch by itself, and add up."""
    total = WorkReading()
    for batch in session.asked.batches.walk():
        hook = ShapesHook(session.subject.model, session.asked.layers)
        with hook, hook.batch(0, attention_mask=batch.tensors["attention_mask"]):
            answering.answer(session, batch)
        total += hook.reading()
    return total


def equal(one: WorkReading | None, other: WorkReading) -> None:
    """Every figure of every layer is the same: calls, FLOPs of all kinds, bytes, tokens and keys."""
    assert one is not None
    assert (one.layers, one.outside, one.nested) == (other.layers, other.outside, other.nested)
    assert (one.total_flops, one.uncounted_calls()) == (other.total_flops, other.uncounted_calls())


@pytest.mark.parametrize(
    ("dataset", "samples", "rows", "fixed"),
    [("textvqa", 6, 1, False), ("textvqa", 8, 4, False), ("textvqa", 8, 4, True), ("scienceqa", 4, 1, True)],
)
def test_the_sum_is_that_of_every_batch(tmp_path: Path, dataset: str, samples: int, rows: int, fixed: bool) -> None:
    """One by one and padded, with answers that end where they end or all at one length."""
    session = answered(tmp_path, dataset=dataset, samples=samples, batch_size=rows, fixed_tokens=fixed)
    work_pass.flops_pass(session)
    equal(session.read.work, every_batch(session))
    assert session.read.passes["flops_batches"]["of"] == len(session.asked.batches)
    assert session.read.warnings == []


def test_what_repeats_is_not_walked_again(tmp_path: Path) -> None:
    """8 pictures under one prompt, with answers of one length: the first, and the 1st, 2nd and 4th repeat."""
    session = answered(tmp_path, dataset="coco", samples=8, fixed_tokens=True)
    work_pass.flops_pass(session)
    assert session.read.passes["flops_batches"] == {"walked": 4, "of": 8}
    equal(session.read.work, every_batch(session))


def test_where_values_decide_every_batch_is_counted(tmp_path: Path) -> None:
    """A layer that some pictures skip: batches of one signature differ, so none is taken for another."""
    session = answered(tmp_path, dataset="coco", samples=6, fixed_tokens=True)
    layer = next(x.name for x in session.asked.layers if x.kind == "decoder_layer")
    mlp = session.subject.model.get_submodule(layer).mlp
    work = mlp.forward
    seen: list[int] = []

    def by_content(hidden: torch.Tensor) -> torch.Tensor:
        if hidden.shape[1] > 1:
            seen.append(int(hidden.double().abs().sum() * 1e4) % 2)
        done: torch.Tensor = hidden if seen[-1] else work(hidden)
        return done

    mlp.forward = by_content
    work_pass.flops_pass(session)
    assert set(seen) == {0, 1}
    assert session.read.passes["flops_batches"] == {"walked": 6, "of": 6, "differed": True}
    equal(session.read.work, every_batch(session))


def test_answers_of_another_length_are_said(tmp_path: Path) -> None:
    """The bare pass wrote three tokens where the flops pass writes four."""
    session = answered(tmp_path, dataset="coco", samples=2, fixed_tokens=True)
    session.read.bare[1] = Walked(1, 1.0, Generated(("a",), ((1,),), (3,), (True,), 0.1, ()))
    work_pass.flops_pass(session)
    (said,) = session.read.warnings
    assert said.startswith("In 1 of 2 batches the answer had another length when FLOPs and bytes were counted")


def test_repeats_are_few_however_many_there_are() -> None:
    """Of 300 batches of two kinds the 1st, 2nd, 4th, ... repeat are counted again, beside the first of their kind."""
    groups: dict[Hashable, list[int]] = {"a": list(range(0, 300, 2)), "b": list(range(1, 300, 2))}
    again = work_pass.repeats(groups)
    assert list(again) == [2, 3, 5, 9, 17, 33, 65, 129, 257]
    assert set(again.values()) == {0, 1}
    assert again[2] == 0
    assert work_pass.repeats({"a": [0], "b": [1]}) == {}
