"""The selector on the rows of a run, without a model."""

from __future__ import annotations

import pytest
from sample_run import sample_run

from layerprof.errors import SelectorError
from layerprof.layers.row_selector import select_rows

LANGUAGE = "model.language_model.layers"


def names(selector: str) -> list[str]:
    """Return the names that a selector takes of the sample run with rows of two submodules, each once."""
    run = sample_run()
    block = next(row for row in run.layers if row.kind == "decoder_layer")
    parts = [
        block.model_copy(update={"name": f"{LANGUAGE}.{index}.mlp", "kind": "module", "index": index})
        for index in range(3)
    ]
    return list(dict.fromkeys(row.name for row in select_rows((*run.layers, *parts), selector)))


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ("language[0:2]", [f"{LANGUAGE}.0", f"{LANGUAGE}.1"]),
        ("lm_head,merger", ["model.visual.merger", "lm_head"]),
        ("*visual.blocks*", ["model.visual.blocks.0", "model.visual.blocks.1"]),
        ("language[-1].mlp", [f"{LANGUAGE}.2.mlp"]),
        ("language[*].m*", [f"{LANGUAGE}.{index}.mlp" for index in range(3)]),
        ("language[1:].mlp", [f"{LANGUAGE}.1.mlp", f"{LANGUAGE}.2.mlp"]),
        (f"{LANGUAGE}.1.mlp", [f"{LANGUAGE}.1.mlp"]),
    ],
)
def test_rows_are_taken_by_tower_kind_range_glob_and_part(selector: str, taken: list[str]) -> None:
    """All that rows tell: towers, kinds, positions, names, and submodules that have rows."""
    assert names(selector) == taken


def test_all_rows() -> None:
    """Every row, the submodules' too."""
    assert len(names("all")) == len({row.name for row in sample_run().layers}) + 3


@pytest.mark.parametrize("selector", ["vision[*].mlp", "language[*].self_attn", "language[9].mlp"])
def test_submodules_without_rows_are_refused(selector: str) -> None:
    """One message, which says how to get such rows."""
    with pytest.raises(SelectorError, match="the run has no rows of them") as caught:
        names(selector)
    assert "profile again with --layers" in caught.value.remedy
