"""What if: Amdahl's law and rooflines over rows whose every figure was chosen by hand."""

from __future__ import annotations

from typing import Any

import pytest
from sample_run import bare_run, sample_run

from layerprof.errors import RequestError, SelectorError
from layerprof.estimate.what_if import Change, WhatIfRow, what_if
from layerprof.records import Apart, LayerRow, Phase, RequestColumn, Run, SpanStatistic

PEAKS = {"flops_per_s": 1e12, "bytes_per_s": 1e10}


def row(name: str, **changes: Any) -> LayerRow:
    """Return a decoder layer's row: 1 s, half of it busy; 2e9 bytes, all of them weights; 1e9 FLOPs."""
    source = next(it for it in sample_run().layers if it.kind == "decoder_layer" and it.phase is Phase.DECODE)
    values: dict[str, Any] = {
        "name": name,
        "flops": 10**9,
        "bytes": 2 * 10**9,
        "bytes_weights": 2 * 10**9,
        "busy_share": 0.5,
        "span_s": SpanStatistic(total=1.0, median=0.1, p95=0.1),
    }
    return source.model_copy(update=values | changes)


def run(*rows: LayerRow, peaks: dict[str, float] | None = PEAKS, seconds: float = 10.0, **changes: Any) -> Run:
    """Return a run of these rows in fp16, which took `seconds`; on a device of 1 TFLOP/s and 10 GB/s unless said."""
    of = sample_run()
    ledger = of.ledger.model_copy(
        update={"span_s": of.ledger.span_s.model_copy(update={"total": seconds}), "request_s": changes.pop("way", None)}
    )
    environment = of.environment | {"peaks": peaks}
    model = of.model | {"dtype": "fp16"}
    return of.model_copy(
        update={"layers": rows, "ledger": ledger, "environment": environment, "model": model} | changes
    )


def only(of: Run, change: Change, layers: str = "all") -> WhatIfRow:
    """Return the single row of an answer."""
    (found,) = what_if(of, layers, change).layers
    return found


def test_layers_that_cost_nothing_are_amdahls_limit() -> None:
    """2 of 10 s go: a fifth, and the rest is 1.25 times as fast; of 16 s from file to answer 12.5 %."""
    way = RequestColumn(read=1.0, process=5.0, copy=0.0, generate=10.0, residual=0.0, total=16.0)
    got = what_if(run(row("a.layers.0"), row("a.layers.1"), way=way), "language", Change()).totals
    assert (got.at_most_s, got.at_most_share, got.at_most_speedup) == (2.0, 0.2, 1.25)
    assert got.request_share == pytest.approx(0.125)
    assert got.request_speedup == pytest.approx(1 / 0.875)
    assert got.alike_s is None


def test_layers_that_are_as_many_times_as_fast() -> None:
    """Four times as fast: three quarters of 1 s go, 7.5 % of 10 s."""
    got = what_if(run(row("a.layers.0")), "all", Change(speedup=4)).totals
    assert (got.at_most_s, got.at_most_share) == (0.75, 0.075)


def test_fewer_bytes_save_in_proportion_where_memory_bounds() -> None:
    """Busy 0.5 s; int8 moves half the bytes: 0.25 s go, and so they do at the same share of the roof.

    The roof is 2e9 / 1e10 = 0.2 s, then 0.1 s: the busy time beyond it, 0.4 s, is no tighter bound.
    """
    got = only(run(row("a.layers.0")), Change("int8"))
    assert got.least_s == pytest.approx(0.2)
    assert got.least_after_s == pytest.approx(0.1)
    assert got.bytes_weights_after == 10**9
    assert got.at_most_s == got.alike_s == pytest.approx(0.25)


def test_what_computes_gains_nothing_at_the_same_share_of_its_roof() -> None:
    """4e11 FLOPs take 0.4 s on this device, whatever the bytes: at most the 0.1 s above the roof go, alike none."""
    got = only(run(row("a.layers.0", flops=4 * 10**11)), Change("int8"))
    assert got.least_s == got.least_after_s == pytest.approx(0.4)
    assert got.at_most_s == pytest.approx(0.1)
    assert got.alike_s == 0


def test_activations_stay_as_they_are() -> None:
    """Of 4e9 bytes half are weights; int8 takes a quarter of them all, so a quarter of the busy 0.5 s."""
    got = only(run(row("a.layers.0", bytes=4 * 10**9)), Change("int8"))
    assert got.at_most_s == pytest.approx(0.125)


def test_without_peaks_the_bytes_alone_bound() -> None:
    """On a processor nobody knows the roof of, int4 of fp16 keeps 4 of 16 bits; nothing is said of any share."""
    answer = what_if(run(row("a.layers.0"), peaks=None), "all", Change("int4"))
    (got,) = answer.layers
    assert got.at_most_s == pytest.approx(0.5 * (1 - 4 / 16))
    assert got.alike_s is got.least_s is answer.totals.alike_share is None
    assert any("peaks are not known" in line for line in answer.assumed)


def test_without_a_trace_all_of_a_span_may_be_busy() -> None:
    """No busy share: the bound is over the whole second."""
    got = only(run(row("a.layers.0", busy_share=None)), Change("int8"))
    assert got.at_most_s == pytest.approx(0.5)


def test_a_row_faster_than_its_roof_is_not_bounded_by_it() -> None:
    """Its bytes came from a cache: busy 0.05 s, where memory takes 0.2 s, then 0.1 s. Half as many may take half."""
    got = only(run(row("a.layers.0", span_s=SpanStatistic(total=0.1, median=0.1, p95=0.1))), Change("int8"))
    assert [got.at_most_s, got.alike_s] == pytest.approx([0.025, 0.025])


def test_flops_that_are_at_least_leave_the_bound_alone() -> None:
    """An operator was not counted: the roof is higher than known, so the bound holds, and no share is told."""
    got = only(run(row("a.layers.0", uncounted={"aten::x": 1})), Change("int8"))
    assert got.at_most_s == pytest.approx(0.25)
    assert got.alike_s is None


def test_embeddings_and_what_is_skipped_stay() -> None:
    """As transformers leaves them: 0, with the reason; the other layer's half second of weights may go."""
    rows = (row("a.layers.0"), row("a.layers.1"), row("lm_head", kind="lm_head"))
    got = what_if(run(*rows), "all", Change("int8", skip="language[0]")).layers
    assert [it.at_most_s for it in got] == [0, pytest.approx(0.25), 0]
    assert [it.reason for it in got] == ["skipped", None, "left as it is"]


def test_a_head_that_is_no_output_head_may_change_and_patches_are_said_to_stay() -> None:
    """Transformers stores the head of a vision tower in the format, too; a convolution over patches it leaves."""
    rows = (row("v.head", kind="head"), row("v.patch_embed", kind="patch_embed"))
    got = what_if(run(*rows), "all", Change("int8"))
    assert [it.at_most_s for it in got.layers] == [pytest.approx(0.25), 0]
    assert any("Patches are embedded by a convolution" in it for it in got.assumed)


def test_weights_that_are_stored_otherwise_already_are_not_counted_twice() -> None:
    """A run of int8 weights: int4 of them would be another checkpoint, which nobody can tell from this one."""
    with pytest.raises(RequestError, match=r"its weights are int8 \+ fp16 already") as caught:
        what_if(run(row("a.layers.0", weights_dtype="int8 + fp16")), "all", Change("int4"))
    assert caught.value.remedy == "Give a run of the model as it is, without --quantization."


def test_a_change_of_nothing_says_what_to_do() -> None:
    """Everything is skipped, or has no matrix."""
    with pytest.raises(RequestError, match="skipped") as caught:
        what_if(run(row("a.layers.0")), "all", Change("int8", skip="language"))
    assert "--quantization-skip take fewer" in caught.value.remedy
    with pytest.raises(RequestError, match="left as it is") as caught:
        what_if(run(row("a.norm", kind="norm")), "all", Change("int8"))
    assert "--layers language" in caught.value.remedy


def test_weights_of_another_dtype_than_the_models_shrink_from_theirs() -> None:
    """A layer kept in fp32 in a model of fp16: int8 leaves a quarter of its bytes."""
    got = only(run(row("a.layers.0", weights_dtype="fp32 + fp16")), Change("int8"))
    assert got.bytes_weights_after == 5 * 10**8


def test_a_row_without_bytes_is_named() -> None:
    """What was not counted has no figure, is in no sum, and stands by name."""
    answer = what_if(run(row("a.layers.0"), row("a.layers.1", bytes=None)), "all", Change("int8"))
    assert answer.without_figure == ("a.layers.1 decode",)
    assert answer.totals.at_most_s == pytest.approx(0.25)
    assert answer.layers[1].at_most_s is None


def test_a_submodule_is_in_its_layers_time() -> None:
    """Asked for both, its second counts once; asked for the submodule alone, all of it counts."""
    rows = (row("a.layers.0"), row("a.layers.0.mlp", kind="module", apart=Apart()))
    assert what_if(run(*rows), "all", Change()).totals.at_most_s == 1.0
    assert what_if(run(*rows), "language[*].mlp", Change()).totals.at_most_s == 1.0


def test_layers_that_call_each_other_count_once() -> None:
    """Of a shared block's second, 0.4 s are in no other row; alone it has them all."""
    shared = row("a.shared", apart=Apart(calls=4, span_s=0.4))
    assert what_if(run(row("a.layers.0"), shared), "all", Change()).totals.at_most_s == 1.4
    assert what_if(run(row("a.layers.0"), shared), "a.shared", Change()).totals.at_most_s == 1.0


def test_the_device_is_known_by_its_name_where_the_run_has_no_peaks() -> None:
    """An older run on an H100: 2e9 bytes at 3.35 TB/s."""
    of = run(row("a.layers.0"), peaks=None)
    older = of.model_copy(update={"environment": of.environment | {"device_name": "NVIDIA H100 80GB HBM3"}})
    assert only(older, Change("int8")).least_s == pytest.approx(2e9 / 3.35e12)


def test_what_means_nothing_is_refused() -> None:
    """Each with one message and its remedy."""
    with pytest.raises(RequestError, match="two questions"):
        Change("int8", speedup=2)
    with pytest.raises(RequestError, match="no format 'int5'"):
        Change("int5")
    with pytest.raises(RequestError, match="faster by it"):
        Change(speedup=0.5)
    with pytest.raises(RequestError, match="none is asked for"):
        Change(skip="vision")
    with pytest.raises(RequestError, match="no times of its layers"):
        what_if(bare_run(), "all", Change())
    with pytest.raises(SelectorError, match="matches nothing"):
        what_if(run(row("a.layers.0")), "vision", Change())
    with pytest.raises(RequestError, match="changes none of the layers"):
        what_if(run(row("norm", kind="norm")), "all", Change("int8"))
