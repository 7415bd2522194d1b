"""What stands above every report: figures of the run itself, not of the model that it was first written for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sample_run import sample_run

import layerprof
from layerprof import demo
from layerprof.records import Run
from layerprof.report import facts


def _image(run: Run) -> str:
    return next(fact for fact in facts.settings(run) if " px" in fact)


@pytest.mark.parametrize(
    ("tokens", "samples", "said"),
    [
        (256, 4, "224 px (64 image tokens)"),
        (4 * 576, 4, "224 px (576 image tokens)"),
        (257, 4, "224 px (64.2 image tokens on average)"),
        (None, 4, "224 px"),
        (0, 4, "224 px"),
        (0, 0, "224 px"),
    ],
)
def test_image_tokens_are_those_that_were_counted(tokens: int | None, samples: int, said: str) -> None:
    """Whatever the family's rule; a text model has none, and of a run that did not count them nothing is said."""
    totals = sample_run().totals.model_copy(update={"image_tokens": tokens})
    assert _image(sample_run(totals=totals, samples=samples)) == said


def test_a_run_without_an_image_size_says_none() -> None:
    """A loop of the user's own has images of any size."""
    run = sample_run(settings={})
    assert not [fact for fact in facts.settings(run) if " px" in fact]


def qwen3_vl(folder: Path) -> Path:
    """Write a small Qwen3-VL without weights, whose cells are 2 x 2 patches of 16 px, with the bundled tokenizer."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(demo.MODEL_FOLDER / name, folder / name)
    processor = (demo.MODEL_FOLDER / "processor_config.json").read_text()
    assert '"patch_size": 14' in processor
    (folder / "processor_config.json").write_text(processor.replace('"patch_size": 14', '"patch_size": 16'))
    bundled = json.loads((demo.MODEL_FOLDER / "config.json").read_text())
    text: dict[str, Any] = {
        "vocab_size": 576,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    config = {name: value for name, value in bundled.items() if name.endswith("token_id")} | {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": text | {"model_type": "qwen3_vl_text"},
        "vision_config": vision,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_with_another_cell_has_its_own_count_above_its_report(tmp_path: Path) -> None:
    """Qwen3-VL's cells are 32 px: 7 x 7 of them at 224 px, where Qwen2.5-VL has 8 x 8."""
    run = layerprof.profile(
        model=str(qwen3_vl(tmp_path / "model")),
        weights="random",
        source="bundled",
        samples=2,
        image_size=224,
        max_new_tokens=2,
        energy="off",
        trace=False,
        output=str(tmp_path / "run"),
    )
    assert _image(run) == "images 224 × 224 px, 49 tokens each"
