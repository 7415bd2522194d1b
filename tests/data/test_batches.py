"""Inputs: exact image tokens, left padding, and prompts as the model was taught them."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import checkpoint_folder, picture, samples, subject
from transformers import BatchFeature

from layerprof.data import batching, features
from layerprof.data.chat import chat
from layerprof.errors import RequestError, RunFailedError
from layerprof.models.subject import Subject
from layerprof.readings import Made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Load a random Qwen2.5-VL."""
    return subject(checkpoint_folder(tmp_path_factory.mktemp("tiny") / "model"))


# --- image tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [56, 112, 224, 252])
def test_a_square_image_is_exactly_its_cells(tiny: Subject, size: int) -> None:
    """(size / 28)^2 tokens whatever the picture's own size, as many in the prompt as the grid has cells."""
    examples = [
        dataclasses.replace(samples(["?"]).examples[0], pictures=(partial(picture, *shape),))
        for shape in ((9, 700), (1, 1))
    ]
    data = dataclasses.replace(samples(["?"]), examples=tuple(examples))
    (batch,) = batching.batches(tiny, data, batch_size=2, image_size=size)
    cells = (size // 28) ** 2
    assert batch.image_tokens == (cells, cells)
    assert batch.tensors["image_grid_thw"].tolist() == [[1, size // 14, size // 14]] * 2
    assert tuple(batch.tensors["pixel_values"].shape) == (2 * 4 * cells, 3 * 2 * 14 * 14)


def test_image_sizes_hold_against_a_processor_that_would_upscale(tiny: Subject) -> None:
    """A checkpoint's own min_pixels must not turn 56 px into something else."""
    images = tiny.processor.image_processor
    kept = images.size
    images.size = {"shortest_edge": 200704, "longest_edge": 12845056}
    try:
        (batch,) = batching.batches(tiny, samples(["?"]), image_size=56)
    finally:
        images.size = kept
    assert batch.image_tokens == (4,)


def test_a_processor_that_resizes_all_the_same_is_caught(tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids are held to the image size, so a silent resize ends the run instead of changing its cost."""
    real = type(tiny.processor).__call__

    def resizing(self: Any, **kwargs: Any) -> Any:
        kwargs["images"] = [image.resize((112, 112)) for image in kwargs["images"]]
        return real(self, **kwargs)

    monkeypatch.setattr(type(tiny.processor), "__call__", resizing)
    with pytest.raises(RunFailedError, match="grids"):
        list(batching.batches(tiny, samples(["?"]), image_size=224))


@pytest.mark.parametrize("size", [225, 28, 0, -28])
def test_an_image_size_that_is_no_number_of_cells_is_refused(tiny: Subject, size: int) -> None:
    """With those that would do."""
    with pytest.raises(RequestError, match=f"--image-size {size}"):
        list(batching.batches(tiny, samples(["?"]), image_size=size))


# --- padding and order ------------------------------------------------------------------------------------------


def test_rows_are_padded_on_the_left(tiny: Subject) -> None:
    """Real tokens end every row, even when someone set the tokenizer to pad on the right."""
    tiny.tokenizer.padding_side = "right"
    (batch,) = batching.batches(tiny, samples(["hi?", "what is written on the very long sign here?"]), batch_size=2)
    mask = batch.tensors["attention_mask"]
    assert mask[:, -1].tolist() == [1, 1]
    assert mask[0].tolist() == sorted(mask[0].tolist())
    assert batch.pad_tokens[0] > 0
    assert batch.pad_tokens[1] == 0
    width = mask.shape[1]
    assert [p + n for p, n in zip(batch.pad_tokens, batch.prompt_tokens, strict=True)] == [width, width]


def test_padding_on_the_right_is_found() -> None:
    """The check names the rows whose last position is padding."""
    with pytest.raises(RunFailedError, match=r"rows \[1\]"):
        features.check_left_padding(torch.tensor([[0, 1, 1], [1, 1, 0]]))
    features.check_left_padding(torch.tensor([[0, 1, 1], [1, 1, 1]]))


def test_batches_keep_order_and_every_sample(tiny: Subject) -> None:
    """Five samples in twos: 2, 2, 1."""
    made = list(batching.batches(tiny, samples(["a?", "b?", "c?", "d?", "e?"]), batch_size=2, image_size=56))
    assert [batch.rows for batch in made] == [2, 2, 1]
    assert [batch.index for batch in made] == [0, 1, 2]
    assert [name for batch in made for name in batch.ids] == list("01234")
    assert all(len(batch.prompts) == batch.rows == len(batch.question_cut) for batch in made)


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_has_at_least_one_row(tiny: Subject, size: int) -> None:
    """Anything less is refused with the option's name."""
    with pytest.raises(RequestError, match="--batch-size"):
        list(batching.batches(tiny, samples(["?"]), batch_size=size))


def test_the_whole_processor_output_is_kept(tiny: Subject) -> None:
    """Token kinds too, without which positions of images are silently wrong."""
    (batch,) = batching.batches(tiny, samples(["?"]))
    assert {"input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw"} <= set(batch.tensors)
    kinds = batch.tensors["mm_token_type_ids"]
    assert int((kinds == 1).sum()) == batch.image_tokens[0]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_pixels_come_in_the_models_format(tmp_path: Path, dtype: str) -> None:
    """Pixels like the weights, ids as integers."""
    small = subject(checkpoint_folder(tmp_path / "model"), dtype=dtype)
    (batch,) = batching.batches(small, samples(["?"]), image_size=56)
    assert batch.tensors["pixel_values"].dtype == small.dtype
    assert batch.tensors["input_ids"].dtype == torch.int64


def test_the_parts_of_a_batchs_making_are_told_apart(tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that opening moves by 5 s a picture, the processor by 7 and the copy by 11; hashing counts nowhere."""
    now = [0.0]

    def passing(seconds: float, work: Any) -> Any:
        def taking(*args: Any) -> Any:
            now[0] += seconds
            return work(*args)

        return taking

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(features, "processed", passing(7, features.processed))
    monkeypatch.setattr(batching, "key", passing(1000, batching.key))
    monkeypatch.setattr(BatchFeature, "to", passing(11, BatchFeature.to))
    data = samples(["a?", "b?"])
    slow = [dataclasses.replace(one, pictures=(passing(5, picture),)) for one in data.examples]
    (batch,) = batching.batches(tiny, dataclasses.replace(data, examples=tuple(slow)), batch_size=2, image_size=56)
    assert batch.made == Made(read_s=10, process_s=7, copy_s=11, wall_s=28)


# --- prompts ----------------------------------------------------------------------------------------------------


def test_the_prompt_is_the_chat_templates(tiny: Subject) -> None:
    """Image before text, the assistant's turn open."""
    assert chat(tiny, "Hi?", images=1) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>Hi?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_special_tokens_in_a_question_are_taken_out(tiny: Subject) -> None:
    """A question that holds an image token must not count as a second image, nor end the turn."""
    (batch,) = batching.batches(tiny, samples(["what <|image_pad|> is <|im_end|> this?"]), image_size=56)
    assert batch.image_tokens == (4,)
    ends = (batch.tensors["input_ids"] == tiny.tokenizer.convert_tokens_to_ids("<|im_end|>")).sum()
    assert int(ends) == 2  # the system's turn and the user's


def test_the_budget_spares_the_image(tiny: Subject) -> None:
    """64 image tokens and a budget of 30: only the question is shorter, and the cut is counted."""
    words = " ".join(["word"] * 60) + "?"
    (free,), (cut,) = (
        batching.batches(tiny, samples([words]), image_size=224, max_input_len=length) for length in (None, 30)
    )
    assert cut.image_tokens == free.image_tokens == (64,)
    assert cut.question_cut[0] > 0
    assert free.prompt_tokens[0] - cut.prompt_tokens[0] == cut.question_cut[0]
    assert cut.prompts[0].endswith("Answer the question using a single word or phrase.")


def test_a_model_without_chat_template_gets_image_token_and_text(tiny: Subject) -> None:
    """Nothing is invented around the question."""

    class Plain:
        chat_template = None
        image_token = "<image>"
        image_processor = object()
        tokenizer = tiny.tokenizer

    kept, tiny.tokenizer.chat_template = tiny.tokenizer.chat_template, None
    try:
        assert chat(dataclasses.replace(tiny, processor=Plain()), "Hi?", images=1) == "<image>\nHi?\n"
    finally:
        tiny.tokenizer.chat_template = kept


# --- what the work depends on -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("pixel_values", [[torch.zeros(3, 10, 10)]], [[torch.zeros(3, 20, 10)]]),
        ("tgt_sizes", [torch.tensor([[2, 6]])], [torch.tensor([[3, 4]])]),
    ],
)
def test_tensors_in_lists_are_told_apart(name: str, one: Any, other: Any) -> None:
    """MiniCPM-V's processor gives a list for each sample: pictures of other sizes are other work."""
    ids = {"input_ids": torch.zeros(1, 5, dtype=torch.long)}
    shape = batching._shape(ids | {name: one}, (5,))
    assert shape != batching._shape(ids | {name: other}, (5,))
    assert shape == batching._shape(ids | {name: one}, (5,))
