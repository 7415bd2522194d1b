"""Random weights: the configuration alone is enough, and what is built of it is sound, at any size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_models import CONFIG, PARAMETERS, checkpoint_folder, config_folder, subject

from layerprof.models import family, find, names


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a whole checkpoint, not to be written to."""
    return checkpoint_folder(tmp_path_factory.mktemp("whole") / "tiny")


def test_random_weights_need_the_configuration_alone(tmp_path: Path) -> None:
    """The bundled tokenizer is lent, and the configuration's special ids are set to its own, as is recorded."""
    loaded = subject(config_folder(tmp_path / "bare"), weights="random")
    assert loaded.provenance["parameters"] == PARAMETERS
    assert "bundled" in loaded.provenance["token_ids"]
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.image_token_id) == "<|image_pad|>"
    assert loaded.model.config.text_config.eos_token_id == loaded.tokenizer.eos_token_id


def test_random_weights_are_sound(tmp_path: Path) -> None:
    """Matrices spread by 0.02, biases 0, norms 1, embeddings tied, everything finite and in the format asked for."""
    model = subject(config_folder(tmp_path / "bare"), weights="random", dtype="bf16").model
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    for name, weight in model.named_parameters():
        assert weight.dtype == torch.bfloat16
        values = weight.float()
        if weight.ndim > 1:
            assert values.std().item() == pytest.approx(0.02, rel=0.15), name
        elif name.endswith("bias"):
            assert not values.any(), name
        else:
            assert (values == 1).all(), name


def test_random_weights_follow_the_seed(tmp_path: Path) -> None:
    """The same seed gives the same weights, another one others; no two matrices of a model are alike."""
    folder = config_folder(tmp_path / "bare")
    first, again, other = (subject(folder, weights="random", seed=seed).model for seed in (1, 1, 2))
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    one, two, three = (model.get_parameter(name) for model in (first, again, other))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert not torch.equal(one, first.get_parameter(name.replace("layers.0", "layers.1")))
    assert len({tuple(row[:8].tolist()) for row in one}) == len(one)


def test_buffers_of_random_models_are_those_of_a_loaded_one(whole: Path, tmp_path: Path) -> None:
    """Rotary frequencies are computed, not left as they lay in memory."""
    built = dict(subject(config_folder(tmp_path / "bare"), weights="random", dtype="bf16").model.named_buffers())
    loaded = dict(subject(whole, dtype="bf16").model.named_buffers())
    assert built.keys() == loaded.keys()
    assert built
    for name, buffer in loaded.items():
        assert torch.equal(built[name], buffer), name
        assert built[name].dtype == buffer.dtype, name


def test_the_bundled_configuration_is_the_published_models() -> None:
    """Parts of the 3B model as counted from its published configuration."""
    config = find.find(names.resolve(names.ARCHITECTURE, "random"), "random").config
    with torch.device("meta"):
        model = family.auto_class(config).from_config(config)
    sizes = {
        name: sum(weight.numel() for weight in model.get_submodule(name).parameters())
        for name in (
            "model.visual",
            "model.visual.blocks.0",
            "model.visual.merger",
            "model.visual.patch_embed",
            "model.language_model",
            "model.language_model.layers.35",
        )
    }
    assert list(sizes.values()) == [668_684_288, 19_702_200, 36_708_608, 1_505_280, 3_085_938_688, 77_076_992]
    assert config.vision_config.fullatt_block_indexes == [7, 15, 23, 31]


def test_text_only_models_load_with_their_tokenizer(tmp_path: Path) -> None:
    """A decoder without a vision tower is a subject too, without images."""
    text = {"model_type": "qwen2", **{k: v for k, v in CONFIG["text_config"].items() if k != "model_type"}}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    (tmp_path / "config.json").write_text(json.dumps(text))
    loaded = subject(tmp_path, weights="random")
    assert not loaded.takes_images
    assert not loaded.is_qwen_vl
    assert loaded.cell_px is None
    assert loaded.pad_id == loaded.tokenizer.pad_token_id
