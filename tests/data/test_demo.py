"""The bundled model and its bundled rows."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from PIL import Image

from layerprof.demo import EVALUATION_ROWS, MODEL_FOLDER, rows, tasks, words
from layerprof.demo.drawing import CANVAS, OBJECT_COLORS, SHAPES, shape_mask
from layerprof.errors import RequestError
from layerprof.settings import DATASETS

COLUMNS = {
    "textvqa": {"image", "image_id", "question_id", "question", "answers"},
    "scienceqa": {"image", "question", "choices", "answer", "hint"},
    "coco": {"image", "question_id", "question", "answer"},
}
FLOOR = {"textvqa": 6, "scienceqa": 6, "coco": 6}
"""Right answers of eight, well below what the shipped checkpoint reaches."""


@pytest.mark.parametrize("dataset", DATASETS)
def test_rows_are_the_same_every_time_and_have_the_hub_columns(dataset: str) -> None:
    """Drawing a row twice gives the same pixels and fields, with the columns its hub dataset has."""
    first, second = list(rows(dataset, 5)), list(rows(dataset, 5))
    for one, other in zip(first, second, strict=True):
        assert one["image"].tobytes() == other["image"].tobytes()
        assert {key: value for key, value in one.items() if key != "image"} == {
            key: value for key, value in other.items() if key != "image"
        }
        assert COLUMNS[dataset] <= set(one)
        assert (one["image"].size, one["image"].mode) == ((CANVAS, CANVAS), "RGB")


def test_pixels_are_pinned() -> None:
    """The first images never change, whatever the versions of Python, numpy and Pillow: figures stay comparable."""
    digest = hashlib.sha256()
    for dataset in DATASETS:
        for row in rows(dataset, 3):
            digest.update(row["image"].tobytes())
    assert digest.hexdigest()[:16] == "57cad9a11481b391"


def test_a_row_can_be_had_alone() -> None:
    """Row n does not depend on the rows before it."""
    last = list(rows("coco", 4))[-1]
    alone = tasks.sample("coco", 3).row()
    assert alone["answer"] == last["answer"]
    assert alone["image"].tobytes() == last["image"].tobytes()


def test_rows_end_with_the_evaluation_split() -> None:
    """With no count, a task has 300 rows, each with its own id."""
    ids = [tasks.sample("textvqa", index).fields["image_id"] for index in range(EVALUATION_ROWS)]
    assert len(set(ids)) == EVALUATION_ROWS == 300
    assert len(list(islice(rows("textvqa"), 2))) == 2


def test_textvqa_rows_have_ten_answers_and_a_held_out_word() -> None:
    """As in TextVQA there are ten answers; the first is the word as it is drawn."""
    for index in range(60):
        fields = tasks.sample("textvqa", index).fields
        assert len(fields["answers"]) == 10
        assert fields["answers"][0] in words.EVALUATION
        assert {answer.upper() for answer in fields["answers"]} == {fields["answers"][0]}


def test_training_never_shows_a_held_out_word() -> None:
    """The word lists are disjoint, and random letters that spell a held-out word are drawn again."""
    assert not set(words.TRAINING) & set(words.EVALUATION)
    assert min(len(words.TRAINING), len(words.EVALUATION)) > 200
    shown = {tasks.sample("textvqa", index, "training").fields["answers"][0] for index in range(500)}
    assert not shown & set(words.EVALUATION)


def test_splits_share_no_image() -> None:
    """Training and evaluation draw from unrelated streams."""
    held = {row["image"].tobytes() for row in rows("coco", 40)}
    assert not held & {row["image"].tobytes() for row in rows("coco", 40, split="training")}


def test_words_stay_on_the_canvas_and_some_are_small() -> None:
    """Ordinary letters are 56 px apart, so at 224 px no two share an image token; a few words are smaller."""
    scenes = [tasks.sample("textvqa", index).scene for index in range(EVALUATION_ROWS)]
    written = [word for scene in scenes for word in scene.words]
    assert all(word.x >= 0 and word.x + word.width <= CANVAS for word in written)
    assert all(word.y >= 0 and word.y + word.height <= CANVAS for word in written)
    small = [word for word in written if word.pixel == tasks.SMALL_PIXEL]
    assert all(word.pixel * 7 == 56 for word in written if word not in small)
    assert 0.02 < len(small) / len(written) < 0.12


def test_scienceqa_has_one_right_choice() -> None:
    """The answer indexes the only choice that fits the scene."""
    for index in range(100):
        sample = tasks.sample("scienceqa", index)
        fields, things = sample.fields, sample.scene.things
        chosen = fields["choices"][fields["answer"]]
        assert len(set(fields["choices"])) == 4
        if "present" not in fields["question"] and fields["question"].startswith("Which"):
            assert [choice for choice in fields["choices"] if choice in {t.color for t in things}] == [chosen]
        else:
            asked = next(t for t in things if t.shape in fields["question"] or t.color in fields["question"].split())
            assert chosen in (asked.color, asked.shape)


def test_coco_references_cover_every_order() -> None:
    """At least five captions; with several objects, each order of naming them is among them."""
    for index in range(40):
        sample = tasks.sample("coco", index)
        captions = sample.fields["answer"]
        assert len(captions) == len(set(captions)) >= 5
        for thing in sample.scene.things:
            assert any(caption.startswith(f"a {thing.color} {thing.shape}") for caption in captions)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_box_evenly(shape: str) -> None:
    """Every shape is left-right symmetric, covers a fair part of its box and differs from every other one."""
    mask = shape_mask(shape, 120)
    assert (mask == mask[:, ::-1]).mean() > 0.99
    assert 0.2 < mask.mean() < 0.9
    assert all((mask != shape_mask(other, 120)).mean() > 0.1 for other in SHAPES if other != shape)


def test_unknown_names_are_refused() -> None:
    """A wrong dataset, split or shape is an error that lists the right ones."""
    with pytest.raises(RequestError, match="no bundled samples of imagenet") as caught:
        tasks.sample("imagenet", 0)
    assert "textvqa" in caught.value.remedy
    with pytest.raises(ValueError, match="evaluation"):
        tasks.sample("coco", 0, "test")
    with pytest.raises(ValueError, match="circle"):
        shape_mask("blob", 10)


def test_importing_the_rows_loads_no_torch() -> None:
    """`layerprof --help` and the readers of rows must not pay for torch."""
    code = "import sys, layerprof.demo; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_checkpoint_is_small_and_complete() -> None:
    """At most 8 MB, in Hugging Face format."""
    assert sum(path.stat().st_size for path in MODEL_FOLDER.iterdir()) <= 8_000_000
    names = {path.name for path in MODEL_FOLDER.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    config = json.loads((MODEL_FOLDER / "config.json").read_text())
    assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[Any, Any]]:
    """Load the model in fp32 and its processor, with the network switched off."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
        yield model.eval(), transformers.AutoProcessor.from_pretrained(MODEL_FOLDER)


def test_the_architecture_is_the_real_one(loaded: tuple[Any, Any]) -> None:
    """Windowed and full-attention vision blocks, grouped-query decoder, M-RoPE, tied embeddings, left padding."""
    model, processor = loaded
    text, sight = model.config.text_config, model.config.vision_config
    assert (len(model.model.visual.blocks), len(model.model.language_model.layers)) == (4, 6)
    assert (sight.window_size, list(sight.fullatt_block_indexes)) == (112, [1, 3])
    assert (text.num_attention_heads, text.num_key_value_heads) == (6, 2)
    assert sum(text.rope_parameters["mrope_section"]) == text.hidden_size // text.num_attention_heads // 2
    assert model.lm_head.weight.data_ptr() == model.model.language_model.embed_tokens.weight.data_ptr()
    assert processor.tokenizer.padding_side == "left"
    assert processor.tokenizer.pad_token == "<|endoftext|>"
    assert processor.tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id) == [
        "<|im_end|>",
        "<|endoftext|>",
    ]


def test_names_are_one_token_and_capitals_one_a_letter(loaded: tuple[Any, Any]) -> None:
    """What the model must name is one token; what it must read is spelt."""
    tokenizer = loaded[1].tokenizer
    assert all(len(tokenizer.tokenize(f" {name}")) == 1 for name in (*OBJECT_COLORS, *SHAPES))
    assert tokenizer.tokenize("HOTEL") == list("HOTEL")
    text = "Naïve “quotes”, 北京 and\n\ttabs."
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("side", [224, 448])
def test_a_square_image_gives_its_tokens(loaded: tuple[Any, Any], side: int) -> None:
    """(side / 28) squared image tokens."""
    processor = loaded[1]
    image = next(rows("coco", 1))["image"].resize((side, side))
    text = "<|vision_start|><|image_pad|><|vision_end|>"
    ids = processor(text=[text], images=[image], return_tensors="pt")["input_ids"]
    assert int((ids == processor.image_token_id).sum()) == (side // 28) ** 2


def _question(dataset: str, row: dict[str, Any]) -> str:
    if dataset == "textvqa":
        return str(row["question"]).capitalize() + "\nAnswer the question using a single word or phrase."
    if dataset == "coco":
        return "Provide a one-sentence caption for the provided image."
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True))
    return f"{context}{row['question']}\n{options}\nAnswer with the option's letter from the given choices directly."


def _accepted(dataset: str, row: dict[str, Any]) -> list[str]:
    if dataset == "scienceqa":
        return ["ABCD"[row["answer"]]]
    return list(row["answers"] if dataset == "textvqa" else row["answer"])


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_model_answers(loaded: tuple[Any, Any], dataset: str) -> None:
    """At 224 px it gets most of eight held-out rows right, exactly."""
    model, processor = loaded
    asked = list(rows(dataset, 8))
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _question(dataset, row)}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for row in asked
    ]
    images = [row["image"].resize((224, 224), Image.Resampling.BICUBIC) for row in asked]
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    answers = processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [answer in _accepted(dataset, row) for answer, row in zip(answers, asked, strict=True)]
    assert sum(right) >= FLOOR[dataset], list(zip(answers, [_accepted(dataset, row)[0] for row in asked], strict=True))
