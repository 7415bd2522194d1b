"""The memory pass's reading in rows and books: sums by hand, whatever was asked for."""

from __future__ import annotations

from dataclasses import replace

from layerprof.books import memory
from layerprof.books.rows import rows
from layerprof.readings import Layer, MemoryReading
from layerprof.records import Phase

BLOCK = Layer("layers.0", "language", "decoder_layer", 0)
EMBED = Layer("embed", "language", "embed_tokens", 0)
HEAD = Layer("lm_head", "language", "lm_head", 0)
PART = Layer("layers.0.attn", "language", "module", 0)
AROUND = Layer("layers", "language", "module", 0)
FOUND = (EMBED, BLOCK, HEAD)

READING = MemoryReading(
    peak={("layers.0", Phase.PREFILL): 900, ("layers.0", Phase.DECODE): 300},
    kept={("layers.0", Phase.PREFILL): 200, ("layers.0", Phase.DECODE): 30},
    kept_kv={("layers.0", Phase.PREFILL): 150, ("layers.0", Phase.DECODE): 30},
    calls={("layers.0", Phase.PREFILL): 2, ("layers.0", Phase.DECODE): 3},
    weights={"embed": 1000, "layers.0": 500, "lm_head": 0},
    weights_elsewhere=7,
    at_peak={"layers.0": 700, "lm_head": 60},
    kv_cache=180,
    inputs=40,
    before=3,
    outside={"model.visual": 11, "outside the model": 2},
    total=2600,
    source="hand",
    tied={"lm_head": "embed"},
)


def test_rows_have_the_most_of_a_call_and_the_mean_of_what_calls_keep() -> None:
    """200 bytes kept by two calls are 100 each, 75 of them in the cache; weights stand in every phase."""
    prefill, decode = rows(FOUND, memory=READING)
    assert (prefill.memory_peak_bytes, prefill.memory_kept_bytes, prefill.memory_kept_kv_bytes) == (900, 100, 75)
    assert (decode.memory_peak_bytes, decode.memory_kept_bytes, decode.memory_kept_kv_bytes) == (300, 10, 10)
    assert (prefill.weights_bytes, decode.weights_bytes) == (500, 500)


def test_without_the_pass_there_is_no_figure() -> None:
    """None, never 0."""
    assert memory.row_fields(None, {}, ("layers.0", Phase.PREFILL)) == {"weights_bytes": None}
    assert memory.column(FOUND, None) is None


def test_a_pass_that_failed_has_its_reason() -> None:
    """The books say why they are empty."""
    column = memory.column(FOUND, None, "the pass failed")
    assert column is not None
    assert (column.layers, column.total, column.reason) == (None, None, "the pass failed")


def test_books_of_the_peak_are_closed_and_the_residual_is_shown() -> None:
    """500 of weights and 700 held in blocks; what is left of 2,600 is in no line: 97."""
    column = memory.column(FOUND, READING)
    assert column is not None
    assert column.layers == 1200
    assert column.rest == {
        "embed_tokens": 1000,
        "lm_head": 60,
        "weights elsewhere": 7,
        "KV cache": 180,
        "inputs": 40,
        "there before": 3,
        "outside layers: visual": 11,
        "outside layers: outside the model": 2,
    }
    assert (column.residual, column.total) == (97, 2600)


def test_books_do_not_depend_on_which_submodules_were_asked_for() -> None:
    """A block's attention has 300 of its 500 bytes of weights; a list around the blocks has the 7 that no layer has."""
    asked = replace(
        READING,
        weights={"embed": 1000, "layers": 7, "layers.0": 200, "layers.0.attn": 300, "lm_head": 0},
        weights_elsewhere=0,
    )
    assert memory.column((EMBED, AROUND, BLOCK, PART, HEAD), asked) == memory.column(FOUND, READING)


def test_a_rows_weights_are_those_of_all_inside_it() -> None:
    """A submodule shows its own, the block around it both, the list around that all three."""
    asked = replace(READING, weights={"layers": 7, "layers.0": 200, "layers.0.attn": 300})
    assert memory.weights_inside((AROUND, BLOCK, PART), asked) == {
        "layers": 507,
        "layers.0": 500,
        "layers.0.attn": 300,
    }
