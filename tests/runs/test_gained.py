"""Which layers gained and which lost, against sums done by hand."""

from __future__ import annotations

import pytest
from sample_run import sample_run, samples

from layerprof.records import Phase, Run
from layerprof.runs.gained import gained
from layerprof.runs.sides import Paired, Side

LAYERS = tuple(f"model.language_model.layers.{index}" for index in range(3))
KEYS = tuple((name, Phase.DECODE) for name in LAYERS)


def side(*seconds: float, run: Run | None = None) -> Side:
    """Return a run of two samples in each of two batches, in both of which the decoder layers took so long."""
    asked = tuple(
        sample.model_copy(update={"id": f"{sample.id}{batch}", "key": f"{sample.id}{batch}", "batch": batch})
        for batch in range(2)
        for sample in samples()[:2]
    )
    spans = {key: {0: each, 1: each} for key, each in zip(KEYS, seconds, strict=True)}
    return Side(run or sample_run(), asked, (), spans)


def test_layers_of_a_kind_are_counted_by_what_became_of_each() -> None:
    """Of 1 s each, one took half, one twice and one the same: 3.5 for 3 s a batch of two, one faster, one slower."""
    a, b = side(1.0, 1.0, 1.0), side(0.5, 2.0, 1.0)
    found = {(one.phase, one.kind): one for one in gained(a, b, Paired(a, b))}
    decode = found[Phase.DECODE, "decoder_layer"]
    assert (decode.layers, decode.faster, decode.slower) == (3, 1, 1)
    assert (decode.span.before, decode.span.after) == (1.5, 1.75)
    assert decode.span.ci95 == pytest.approx((3.5 / 3, 3.5 / 3))
    assert decode.most is not None
    assert (decode.most.name, decode.most.span.value) == (LAYERS[0], 0.5)
    assert decode.least is not None
    assert (decode.least.name, decode.least.span.value) == (LAYERS[1], 2.0)


def test_without_times_of_batches_nothing_is_called_faster() -> None:
    """The sums of the rows stand, without an interval: 0.12 s of 4 samples in both runs."""
    a, b = side(1.0, 1.0, 1.0), side(1.0, 1.0, 1.0)
    bare = Side(a.run, a.samples), Side(b.run, b.samples)
    decode = next(
        one for one in gained(*bare, Paired(*bare)) if (one.phase, one.kind) == (Phase.DECODE, "decoder_layer")
    )
    assert decode.span.before == pytest.approx(0.12 / 4)
    assert (decode.span.ci95, decode.faster, decode.slower) == (None, 0, 0)


def test_parts_of_layers_are_not_counted_beside_them() -> None:
    """A submodule's row lies inside its layer's, and a layer of one run alone has nothing to be compared with."""
    run = sample_run()
    inside = run.layers[1].model_copy(update={"name": f"{run.layers[1].name}.attn", "kind": "submodule"})
    alone = run.layers[2].model_copy(update={"name": "other.blocks.9", "kind": "alone"})
    a, b = side(1, 1, 1, run=run.model_copy(update={"layers": (*run.layers, inside, alone)})), side(1, 1, 1)
    assert not {"submodule", "alone"} & {one.kind for one in gained(a, b, Paired(a, b))}
