"""The memory pass in a run: asked for, each signature is walked once; its books close, and without it nothing is 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import layerprof
from layerprof.records import Phase, Run

KV_PER_POSITION = 2 * 2 * 32 * 4
"""Keys and values of two heads of 32 floats: the bundled model's."""


def profile(folder: Path, *, memory: bool, **more: Any) -> Run:
    """Caption with the bundled model."""
    return layerprof.profile(
        model="demo",
        dataset="coco",
        device="cpu",
        dtype="fp32",
        max_new_tokens=3,
        fixed_tokens=True,
        trace=False,
        energy="off",
        memory=memory,
        output=str(folder / "run"),
        **more,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five samples in batches of two: the last batch has one row."""
    return profile(tmp_path_factory.mktemp("runs"), memory=True, samples=5, batch_size=2)


def test_books_close_against_the_peak_of_the_walk(run: Run) -> None:
    """Layers, rest and nothing else come to the most that was held at once; weights alone are in it whole."""
    column = run.ledger.memory_bytes
    assert column is not None
    assert column.residual == 0
    assert column.layers is not None
    assert column.layers + sum(column.rest.values()) == column.total
    assert run.passes["memory"]["tied"] == {"lm_head": "model.language_model.embed_tokens"}


def test_rows_have_weights_that_add_up_to_the_models(run: Run) -> None:
    """Each parameter of 4 bytes under one layer, beside the tables of angles that are buffers (half of 32 floats)."""
    weights = {row.name: row.weights_bytes or 0 for row in run.layers}
    angles = sum(size for name, size in weights.items() if "rotary" in name)
    assert sum(weights.values()) - angles == 4 * run.model["parameters"]
    assert weights["lm_head"] == 0


def test_decoder_layers_keep_their_cache_and_decode_a_position_a_row(run: Run) -> None:
    """Two batches of two rows, of which one is walked, and one of one: a step keeps five thirds of a position."""
    assert run.passes["memory_batches"] == {"walked": 2, "of": 3}
    for row in run.layers:
        if row.kind == "decoder_layer" and row.phase is Phase.DECODE:
            assert row.memory_kept_bytes == row.memory_kept_kv_bytes == round(KV_PER_POSITION * 5 / 3)
        if row.phase is Phase.VISION:
            assert row.memory_kept_bytes == row.memory_kept_kv_bytes == 0
            assert row.memory_peak_bytes


def test_without_it_there_is_no_figure_but_a_reason(tmp_path: Path) -> None:
    """Columns are None, and the run says that it was not asked for."""
    run = profile(tmp_path, memory=False, samples=1)
    assert run.ledger.memory_bytes is None
    assert {row.memory_peak_bytes for row in run.layers} == {None}
    assert {row.weights_bytes for row in run.layers} == {None}
    assert run.passes["reasons"]["memory"] == "--memory was not given"
