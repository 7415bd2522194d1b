"""The format that weights are stored in stands beside layers where a model stores them in several."""

from __future__ import annotations

import csv
import io

from sample_run import sample_run
from shown import shown

from layerprof.records import LayerRow, Run
from layerprof.report import facts, layer_lines, weights
from layerprof.report.formats import markdown, tensorboard
from layerprof.report.payload import payload
from layerprof.runs.layer_table import csv_text


def quantised(*, but: int | None = None) -> Run:
    """Return the sample run with its blocks in int8 (all but one of the decoder's) and its rest in fp16."""

    def stored(row: LayerRow) -> str:
        blocks = row.kind in ("vision_block", "decoder_layer")
        left = row.kind == "decoder_layer" and row.index == but
        return "int8 + fp16" if blocks and not left else "fp16"

    run = sample_run()
    return run.model_copy(
        update={"layers": tuple(row.model_copy(update={"weights_dtype": stored(row)}) for row in run.layers)}
    )


def written(run: Run) -> str:
    """Return the run as Markdown."""
    out = io.StringIO()
    markdown.render(run, out)
    return out.getvalue()


def test_formats_have_a_column_where_layers_differ_in_them() -> None:
    """In the terminal, in Markdown, and in the page's rows."""
    run = quantised()
    line = next(line for line in shown(run, 120).splitlines() if line.startswith("layers.0"))
    assert "int8 + fp16" in line
    assert "| weights |" in written(run)
    assert "int8 + fp16" in written(run)
    assert {row["weights"] for row in payload(run)["rows"]} == {"int8 + fp16", "fp16"}


def test_an_ordinary_model_has_no_such_column() -> None:
    """One format everywhere stands in the header already."""
    run = sample_run()
    same = run.model_copy(
        update={"layers": tuple(row.model_copy(update={"weights_dtype": "fp16"}) for row in run.layers)}
    )
    assert "weights" not in shown(same, 160)
    assert "| weights |" not in written(same)


def test_layers_in_different_formats_share_no_line() -> None:
    """A layer that was left as it is stands alone, however alike its time is."""
    found = layer_lines.layer_groups(quantised(but=2), fold=True)
    prefill = [line for group in found if group.phase == "prefill" for line in group.lines]
    assert [line.label for line in prefill if line.label.startswith("layers")] == ["layers.0-1", "layers.2"]


def test_the_table_of_layers_has_the_format() -> None:
    """`layers.csv` names it beside the bytes of the weights."""
    rows = list(csv.DictReader(io.StringIO(csv_text(quantised()))))
    assert rows[0]["weights_dtype"] == "fp16"
    assert rows[1]["weights_dtype"] == "int8 + fp16"


def test_how_weights_are_stored_stands_in_the_header() -> None:
    """With the package; where they were unpacked to run, that is said."""
    model = {"format": "int8", "package": "torchao", "package_version": "0.18.0", "run_as": None}

    def header(told: dict[str, str | None]) -> str | None:
        run = sample_run()
        return weights.stored(run.model_copy(update={"model": run.model | {"quantization": told}}))

    assert header(model) == "weights int8 (torchao 0.18.0)"
    assert header(model | {"run_as": "bf16"}) == "weights int8, unpacked to bf16 (torchao 0.18.0)"
    assert weights.stored(sample_run()) is None
    assert "weights fp16, int8 + fp16" in facts.settings(quantised())


def test_bytes_of_weights_that_nobody_can_see_are_at_least() -> None:
    """They are marked wherever bytes stand; in the sample run the 1st decoder layer hides 1,000 numbers."""
    run = sample_run()
    hidden = {"unseen_weights": {"Opaque": 1000}}
    marked = tuple(
        row.model_copy(update=hidden if row.kind == "decoder_layer" and row.index == 0 else {}) for row in run.layers
    )
    run = run.model_copy(update={"layers": marked})
    before = [(row["name"], row["bytes_at_least"]) for row in payload(run)["rows"] if row["kind"] == "decoder_layer"]
    assert {at_least for name, at_least in before if name.endswith("layers.0")} == {True}
    assert {at_least for name, at_least in before if not name.endswith("layers.0")} == {False}
    lines = {line.split("|")[1].strip(): line for line in written(run).splitlines() if line.startswith("| layers.")}
    assert ("≥" in lines["layers.0"], "≥" in lines["layers.1"]) == (True, False)
    assert any(line.startswith("layers.0") and "≥" in line for line in shown(run, 160).splitlines())
    rows = list(csv.DictReader(io.StringIO(csv_text(run))))
    assert {row["name"].endswith("layers.0") for row in rows if row["bytes_at_least"] == "True"} == {True}
    drawn = {(tag, step) for tag, step, _ in tensorboard.scalars(run)}
    assert ("bytes_per_call/prefill", 1) in drawn
    assert ("bytes_per_call/prefill", 0) not in drawn


def test_an_adapter_stands_in_the_header() -> None:
    """Its kind and its rank; a model without one says nothing."""
    run = sample_run()
    put_on = run.model_copy(update={"model": run.model | {"adapter": {"kind": "LORA", "rank": 8, "base": "x"}}})
    assert "lora adapter of rank 8" in facts.settings(put_on)
    assert weights.adapter(run) is None
