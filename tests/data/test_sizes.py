"""Native sizes: Qwen's rule against hand counts and against the processor's own, its bounds, and who has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import families
import pictured_families
import pytest
from PIL import Image
from small_models import checkpoint_folder, picture, samples, subject
from transformers import BatchFeature

from layerprof.data import batching, sizes
from layerprof.data.sizes import Sizing
from layerprof.data.spec import Dataset, Shown
from layerprof.errors import RequestError, RunFailedError
from layerprof.models.subject import Subject
from layerprof.records import Fed


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Load a random Qwen2.5-VL; its processor bounds pictures by 3,136 and 12,845,056 pixels."""
    return subject(checkpoint_folder(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture
def bounded(tiny: Subject) -> Iterator[Subject]:
    """Give the checkpoint bounds of its own: 6,272 to 78,400 pixels."""
    images = tiny.processor.image_processor
    kept = images.size
    images.size = {"shortest_edge": 6272, "longest_edge": 78400}
    yield tiny
    images.size = kept


def of(*shapes: tuple[int, int]) -> Dataset:
    """Make a sample of each of these shapes."""
    data = samples(["?"] * len(shapes))
    examples = (
        dataclasses.replace(one, pictures=(partial(picture, *shape),))
        for one, shape in zip(data.examples, shapes, strict=True)
    )
    return dataclasses.replace(data, examples=tuple(examples))


@pytest.mark.parametrize(
    ("size", "bounds", "due"),
    [
        ((640, 480), (3136, 12845056), (644, 476)),  # 22.9 and 17.1 cells of 28 px
        ((640, 480), (3136, 78400), (308, 224)),  # root of 307,200 / 78,400 is 1.979: 11.5 and 8.7 cells, rounded down
        ((40, 30), (3136, 12845056), (84, 56)),  # root of 3,136 / 1,200 is 1.617: 2.3 and 1.7 cells, rounded up
        ((42, 70), (784, 12845056), (56, 56)),  # 1.5 and 2.5 cells go to the even number
        ((5, 500), (784, 12845056), (28, 504)),  # one cell at least
    ],
)
def test_qwen_s_rule(size: tuple[int, int], bounds: tuple[int, int], due: tuple[int, int]) -> None:
    """Nearest multiples of a cell, scaled by the root of bound over pixels where they leave the bounds."""
    assert sizes.rule(*size, 28, bounds) == due


@pytest.mark.parametrize("shape", [(640, 480), (480, 640), (30, 40), (56, 56), (333, 77), (2000, 1500), (97, 1203)])
@pytest.mark.parametrize("which", ["tiny", "qwen3_vl"])
def test_a_native_picture_has_the_grid_that_the_processor_s_own_resize_gives(
    tiny: Subject, shape: tuple[int, int], which: str
) -> None:
    """The processor, left to resize by itself, is the peer; patches are 14 or 16 px."""
    asked = tiny if which == "tiny" else pictured_families.build(which)
    own = asked.processor.image_processor([picture(*shape)], return_tensors="pt")["image_grid_thw"].tolist()
    (batch,) = batching.batches(asked, of(shape), image_size="native")
    assert batch.tensors["image_grid_thw"].tolist() == own
    patch = asked.processor.image_processor.patch_size
    ((_, down, across),) = own
    assert batch.fed == ((Fed(width=across * patch, height=down * patch, tokens=down * across // 4),),)


@pytest.mark.parametrize("frames", [2, 3, 8])
@pytest.mark.parametrize("shape", [(640, 480), (30, 40), (97, 403)])
@pytest.mark.parametrize("which", ["tiny", "qwen3_vl"])
def test_a_native_video_has_the_grid_that_the_processor_s_own_resize_gives(
    tiny: Subject, shape: tuple[int, int], frames: int, which: str
) -> None:
    """Bounds hold for a frame in Qwen2.5-VL, and for all frames together in Qwen3-VL."""
    asked = tiny if which == "tiny" else pictured_families.build(which)
    videos = asked.processor.video_processor
    bounds = {"shortest_edge": 8192, "longest_edge": 500_000}
    kept, videos.size = videos.size, bounds
    try:
        film = [picture(*shape) for _ in range(frames)]
        own = videos([film], return_tensors="pt", do_sample_frames=False, cap_pixels_per_frame=False)["video_grid_thw"]
        data = of(shape)
        example = dataclasses.replace(data.examples[0], pictures=(), frames=(partial(picture, *shape),) * frames)
        data = dataclasses.replace(data, examples=(example,))
        (batch,) = batching.batches(asked, data, image_size="native")
    finally:
        videos.size = kept
    assert batch.tensors["video_grid_thw"].tolist() == own.tolist()


def test_the_checkpoint_s_own_bounds_hold(bounded: Subject) -> None:
    """640 x 480 within 78,400 pixels is 11 x 8 cells."""
    (batch,) = batching.batches(bounded, of((640, 480)), image_size="native")
    assert batch.fed == ((Fed(width=308, height=224, tokens=88),),)


def made(tiny: Subject, data: Dataset, **bounds: Any) -> list[tuple[Fed, ...]]:
    """Return what is fed of native pictures within bounds."""
    batches = batching.Batches(tiny, data, image_size="native", **bounds)
    return [fed for batch in batches.walk() for fed in batch.fed]


def test_bounds_of_one_s_own(tiny: Subject) -> None:
    """Fewest and most pixels of each picture; the checkpoint's other bound gives way where they cross."""
    data = of((640, 480), (30, 40))
    assert made(tiny, data, max_pixels=78400) == [
        (Fed(width=308, height=224, tokens=88),),
        (Fed(width=56, height=84, tokens=6),),
    ]
    # 30 x 40 to 50,176 pixels: a root of 6.466, 6.93 and 9.24 cells, rounded up.
    assert made(tiny, data, min_pixels=50176)[1] == (Fed(width=196, height=280, tokens=70),)


def test_a_picture_beyond_the_rule_is_one_that_cannot_be_read(tiny: Subject) -> None:
    """1 to 201 has no size by the rule: it is named with its row, or left out."""
    data = of((56, 56), (2, 402))
    with pytest.raises(RequestError, match="sample 1: 2 x 402 pixels are more than 200 to 1") as caught:
        list(batching.batches(tiny, data, image_size="native"))
    assert "--skip-bad" in caught.value.remedy
    skipping = batching.Batches(tiny, data, image_size="native", skip_bad=True)
    assert [batch.ids for batch in skipping.walk()] == [("0",)]
    assert list(skipping.bad) == ["1"]


def test_a_picture_of_which_a_bound_leaves_nothing_is_told(tiny: Subject) -> None:
    """1,400 x 28 within 784 pixels has less than one cell of height."""
    with pytest.raises(RequestError, match="1400 x 28 pixels have no image token a side left within --max-pixels 784"):
        made(tiny, of((1400, 28)), max_pixels=784)


def test_a_bound_below_one_token_is_refused(tiny: Subject) -> None:
    """An image token is 28 x 28 pixels."""
    with pytest.raises(RequestError, match="less than one image token") as caught:
        made(tiny, of((56, 56)), max_pixels=700)
    assert "784" in caught.value.remedy


@pytest.mark.parametrize("bounds", [{"min_pixels": 9}, {"max_pixels": 9}])
@pytest.mark.parametrize("name", ["llava_next", "idefics3", "gemma3"])
def test_bounds_are_refused_where_the_processor_has_no_such_setting(name: str, bounds: dict[str, Any]) -> None:
    """Ignored, they would be believed."""
    with pytest.raises(RequestError, match="no such setting") as caught:
        batching.Batches(pictured_families.build(name), of((56, 56)), image_size="native", **bounds)
    assert next(iter(bounds)).replace("_", "-") in caught.value.remedy


@pytest.fixture
def glm4v() -> Subject:
    """Make a GLM-4V, whose processor bounds the pixels of a picture and of the one that it repeats it with."""
    marks = ("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>")
    processor = pictured_families.HF.Glm4vProcessor(
        image_processor=pictured_families.HF.Glm4vImageProcessor(),
        tokenizer=pictured_families.tokenizer(*marks),
        video_processor=pictured_families.HF.Glm4vVideoProcessor(),
        chat_template=pictured_families.template("<|begin_of_image|><|image|><|end_of_image|>"),
    )
    model = families.build("glm4v").model
    model.config.image_token_id = processor.image_token_id
    return Subject(model, processor)


def test_bounds_hold_for_another_family_whose_processor_has_them(glm4v: Subject) -> None:
    """168 x 112 is above 10,000 pixels; the rule is the processor's own, and it is held to the most that was asked."""
    data = of((168, 112))
    ((own,),) = made(glm4v, data)
    ((few,),) = made(glm4v, data, max_pixels=10_000)
    ((many,),) = made(glm4v, data, min_pixels=100_000)
    assert (own.width, own.height, own.tokens) == (168, 112, 24)
    assert few.width * few.height <= 10_000 < own.width * own.height < 50_000 <= many.width * many.height
    assert [one.tokens for one in (few, many)] == [one.width * one.height // 784 for one in (few, many)]


def test_a_bound_that_another_family_s_processor_ignores_is_told(
    glm4v: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of larger pictures than asked for is no run of them."""
    monkeypatch.setattr(sizes, "settings_of", lambda _subject, _sizing: {})
    with pytest.raises(RunFailedError, match="18816 pixels, and --max-pixels is 10000"):
        made(glm4v, of((168, 112)), max_pixels=10_000)


def test_a_processor_that_resizes_a_native_picture_otherwise_is_caught(
    tiny: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grid is worked out from the picture and the rule, not read back."""
    real = type(tiny.processor).__call__

    def call(self: Any, **asked: Any) -> BatchFeature:
        asked["images"] = [image.resize((56, 56)) for image in asked["images"]]
        result: BatchFeature = real(self, **asked)
        return result

    monkeypatch.setattr(type(tiny.processor), "__call__", call)
    with pytest.raises(RunFailedError, match=r"native size; \[1, 6, 8\] was due"):
        list(batching.batches(tiny, of((112, 84)), image_size="native"))


def test_a_model_without_images_takes_any_size(tiny: Subject) -> None:
    """There is nothing to bound."""
    text = Subject(tiny.model, tiny.tokenizer)
    assert sizes.sizing_of(text, "native", 5, 9) == Sizing(None, 5, 9)


def test_other_families_get_the_picture_as_it_is() -> None:
    """The tiles are then those of its own shape: wide and high pictures differ, which a square does not."""
    asked = pictured_families.build("llava_next")
    shown = [Image.new("RGB", size) for size in ((112, 56), (56, 112))]
    assert [sizes.sized(asked, Shown((one,)), Sizing()).images[0].size for one in shown] == [(112, 56), (56, 112)]
    wide, high = (batch.fed[0][0] for batch in batching.batches(asked, of((112, 56), (56, 112)), image_size="native"))
    assert (wide.width, wide.height, high.width, high.height) == (112, 56, 56, 112)
