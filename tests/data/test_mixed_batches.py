"""Several images, a video and no image beside each other: the same tokens and answers as alone."""

from __future__ import annotations

import hashlib
from typing import Any

import pictured_families
import pytest
from pictured_samples import ALL, BOTH, FILM, NONE, ONE, TAKEN, TWO, example, of
from small_models import checkpoint_folder, picture, subject

from layerprof import demo
from layerprof.data import batching, datasets
from layerprof.data.spec import Example, Shown
from layerprof.errors import RequestError
from layerprof.measure import generation
from layerprof.models.subject import Subject
from layerprof.settings import ImageSize


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Load a random Qwen2.5-VL whose answers turn on the whole prompt."""
    return subject(checkpoint_folder(tmp_path_factory.mktemp("tiny") / "model"))


def ids(batch: batching.Batch, row: int) -> list[int]:
    """Return a row's prompt without its padding."""
    mask = batch.tensors["attention_mask"][row].bool()
    found: list[int] = batch.tensors["input_ids"][row][mask].tolist()
    return found


@pytest.mark.parametrize("size", ["native", 112])
def test_a_mixed_batch_gives_the_tokens_and_answers_of_its_samples_alone(tiny: Subject, size: ImageSize) -> None:
    """In fp32 neither padding nor the images of others change an answer."""
    (together,) = batching.batches(tiny, of(*ALL), batch_size=len(ALL), image_size=size)
    answers = generation.generate(tiny, together, max_new_tokens=5, fixed=True).answer_tokens
    for row, one in enumerate(ALL):
        (alone,) = batching.batches(tiny, of(one), image_size=size)
        assert ids(alone, 0) == ids(together, row)
        assert (alone.fed[0], alone.image_tokens[0]) == (together.fed[row], together.image_tokens[row])
        assert generation.generate(tiny, alone, max_new_tokens=5, fixed=True).answer_tokens[0] == answers[row]


def test_tokens_and_sizes_of_a_mixed_batch(tiny: Subject) -> None:
    """By hand: 6 x 4 and 2 x 5 cells; none; 2 pairs of frames of 3 x 4; 4 x 9; 3 x 3, and a pair of frames of 3 x 4."""
    (batch,) = batching.batches(tiny, of(*ALL), batch_size=len(ALL), image_size="native")
    assert batch.image_tokens == (24 + 10, 0, 24, 36, 9 + 12)
    assert [[(fed.width, fed.height, fed.frames, fed.tokens) for fed in row] for row in batch.fed] == [
        [(168, 112, None, 24), (56, 140, None, 10)],
        [],
        [(84, 112, 4, 24)],
        [(112, 252, None, 36)],
        [(84, 84, None, 9), (84, 112, 2, 12)],
    ]
    assert batch.tensors["image_grid_thw"].tolist() == [[1, 8, 12], [1, 10, 4], [1, 18, 8], [1, 6, 6]]
    assert batch.tensors["video_grid_thw"].tolist() == [[2, 8, 6], [1, 8, 6]]


def test_squares_of_several_images_and_frames(tiny: Subject) -> None:
    """At 112 px each image is 16 tokens, and each pair of frames."""
    (batch,) = batching.batches(tiny, of(*ALL), batch_size=len(ALL), image_size=112)
    assert batch.image_tokens == (32, 0, 32, 16, 32)


def test_a_batch_of_texts_has_no_pixels(tiny: Subject) -> None:
    """The vision tower is then not called at all."""
    (batch,) = batching.batches(tiny, of(NONE, NONE), batch_size=2)
    assert not [name for name in batch.tensors if "pixel" in name or "grid" in name]
    assert (batch.image_tokens, batch.fed) == ((0, 0), ((), ()))


def test_a_text_model_is_asked_without_any(tiny: Subject) -> None:
    """Pictures and videos are left out, as single images always were."""
    text = Subject(tiny.model.model.language_model, tiny.tokenizer)
    (batch,) = batching.batches(text, of(*ALL), batch_size=len(ALL))
    assert (batch.fed, batch.image_tokens) == (((),) * 5, (0,) * 5)


def test_equal_grids_at_other_places_are_another_shape_of_batch(tiny: Subject) -> None:
    """A batch is walked for FLOPs once a shape: what differs in grids or frames must not pass for the same."""
    variants = (
        (example("a", (112, 56)),),
        (example("a", (56, 112)),),
        (example("a", (56, 56), (56, 56)),),
        (example("a", frames=2, shape=(112, 56)),),
    )
    shapes = [next(batching.batches(tiny, of(*one), image_size="native")).shape for one in variants]
    assert len(set(shapes)) == 4


# --- keys -------------------------------------------------------------------------------------------------------


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"".join(parts), digest_size=12).hexdigest()


def test_the_key_of_a_sample_with_one_image_is_what_it_was() -> None:
    """Runs of earlier versions pair with it: texts ended by zeros, then the size as text and the pixels."""
    image = picture(8, 6)
    one = Example("7", (), "q?", ("a", "b"), "h", ("r", "s"))
    texts = b"q?\0a\0b\0h\0r\0s\0"
    assert batching.key(one, Shown((image,))) == _digest(texts, b"(8, 6)", image.tobytes())
    assert batching.key(one, Shown()) == _digest(texts)


def test_keys_tell_all_pictures(tiny: Subject) -> None:
    """Another second image, another order, frames instead of images: other samples."""
    one, other = picture(8, 6), picture(6, 8)
    shown = (
        *(Shown((one,)), Shown((one, other)), Shown((other, one)), Shown((one, one))),
        *(Shown((), (one, other)), Shown((one,), (other,)), Shown()),
    )
    keys = [batching.key(Example("7", (), "q?"), each) for each in shown]
    assert len(set(keys)) == len(shown)


def test_keys_do_not_depend_on_the_size_that_is_asked_for(tiny: Subject) -> None:
    """A native run and one of 112 px pair sample by sample."""
    (native,) = batching.batches(tiny, of(*ALL), batch_size=len(ALL), image_size="native")
    (square,) = batching.batches(tiny, of(*ALL), batch_size=len(ALL), image_size=112)
    assert native.keys == square.keys
    assert len(set(native.keys)) == len(ALL)


# --- other families ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAKEN)
def test_other_families_take_native_sizes_several_images_and_none_side_by_side(name: str) -> None:
    """Tokens are those of the samples alone, and an answer comes of it."""
    asked, taken = pictured_families.build(name), TAKEN[name]
    (together,) = batching.batches(asked, of(*taken), batch_size=len(taken), image_size="native")
    assert generation.generate(asked, together, max_new_tokens=2, fixed=True).new_tokens == (2,) * len(taken)
    for row, one in enumerate(taken):
        (alone,) = batching.batches(asked, of(one), image_size="native")
        assert (alone.fed[0], alone.image_tokens[0]) == (together.fed[row], together.image_tokens[row])
        assert ids(alone, 0) == ids(together, row)
        assert len(alone.fed[0]) == len(one.pictures) + bool(one.frames)


REFUSED: list[tuple[str, Example, str]] = [
    ("blip2", TWO, "Sample two has 2 images"),
    ("blip2", NONE, "Sample none has no image"),
    ("blip2", FILM, "Sample film has a video of 3 frames"),
    ("llava_next", FILM, "Sample film has a video of 3 frames"),
    ("gemma3", BOTH, "Sample both has 1 image and a video of 2 frames"),
]


@pytest.mark.parametrize(("name", "one", "told"), REFUSED)
def test_what_a_family_does_not_take_is_one_message_before_any_walk(name: str, one: Example, told: str) -> None:
    """It names the first such sample, and ends in what can be done."""
    with pytest.raises(RequestError, match=told) as caught:
        batching.Batches(pictured_families.build(name), of(ONE, one))
    assert "LayerProfiler" in caught.value.remedy


def test_a_processor_that_takes_kinds_alone_and_not_together_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a batch of one works, and the message says so."""
    asked = pictured_families.build("gemma3")
    real = type(asked.processor).__call__

    def call(self: Any, *, images: Any = None, text: Any, **more: Any) -> Any:
        if images is not None and any(isinstance(sample, list) and not sample for sample in images):
            raise ValueError("every sample needs an image")
        if images is not None and not isinstance(images[0], list):
            raise ValueError("images by sample")
        return real(self, images=images, text=text, **more)

    monkeypatch.setattr(type(asked.processor), "__call__", call)
    with pytest.raises(RequestError, match="every sample needs an image") as caught:
        batching.Batches(asked, of(ONE, NONE), batch_size=2)
    assert "--batch-size 1" in caught.value.remedy
    assert len(list(batching.batches(asked, of(ONE, NONE)))) == 2


def test_videos_of_several_lengths_stand_in_a_batch() -> None:
    """Three frames are two pairs, five are three."""
    asked, data = pictured_families.build("qwen3_vl"), of(FILM, example("long", frames=5), ONE)
    (batch,) = batching.batches(asked, data, batch_size=3, image_size="native")
    assert [fed[0].frames for fed in batch.fed] == [4, 6, None]
    assert generation.generate(asked, batch, max_new_tokens=2, fixed=True).new_tokens == (2, 2, 2)


@pytest.mark.parametrize("name", ["internvl", "llava_onevision"])
def test_a_processor_that_makes_one_tensor_of_all_videos_is_told_before_any_walk(name: str) -> None:
    """Videos of several lengths are asked one by one then."""
    asked, data = pictured_families.build(name), of(FILM, example("long", frames=5), ONE)
    with pytest.raises(RequestError, match="sample long, a video of 5 frames, in a batch") as caught:
        batching.Batches(asked, data, batch_size=3, image_size="native")
    assert "--batch-size 1" in caught.value.remedy
    ones = [batch.fed[0][0].frames for batch in batching.batches(asked, data, image_size="native")]
    assert ones == [3, 5, None]


def test_a_templateless_family_gets_a_mark_for_each_image() -> None:
    """Each stands on a line of its own before the text."""
    asked = pictured_families.build("llava_next")
    asked.processor.chat_template = None
    asked.tokenizer.chat_template = None
    (batch,) = batching.batches(asked, of(TWO), image_size="native")
    with_template = pictured_families.build("llava_next")
    (other,) = batching.batches(with_template, of(TWO), image_size="native")
    assert batch.image_tokens == other.image_tokens
    assert [fed.tokens for fed in batch.fed[0]] == [70, 56]  # they stand apart, so that each is told


# --- the bundled ones -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> Subject:
    """Load the bundled model."""
    return subject(demo.MODEL_FOLDER)


def test_the_bundled_model_answers_mixed_samples_alike_in_any_batch(bundled: Subject) -> None:
    """In fp32, for a batch of one and of four."""
    data = datasets.load("scienceqa", source="bundled@mixed", count=4)
    (four,) = batching.batches(bundled, data, batch_size=4, image_size="native")
    answers = generation.generate(bundled, four, max_new_tokens=4).answer_tokens
    ones = batching.batches(bundled, data, image_size="native")
    assert [generation.generate(bundled, one, max_new_tokens=4).answer_tokens[0] for one in ones] == list(answers)
