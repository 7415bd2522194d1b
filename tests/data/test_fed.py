"""What was fed: pixels as each family's processor handed them on, and the tokens that they became."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from small_models import checkpoint_folder, samples, subject

from layerprof.data import batching
from layerprof.data.fed import fed
from layerprof.data.spec import Shown
from layerprof.models.subject import Subject
from layerprof.records import Fed

HF: Any = transformers


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Load a random Qwen2.5-VL."""
    return subject(checkpoint_folder(tmp_path_factory.mktemp("tiny") / "model"))


def shown(*sizes: tuple[int, int], frames: int = 0) -> Shown:
    """Make blank images of these sizes, and a video of 56 x 28."""
    return Shown(tuple(Image.new("RGB", size) for size in sizes), tuple([Image.new("RGB", (56, 28))] * frames))


def made(ids: list[list[int]], **more: Any) -> dict[str, Any]:
    """Make a processor's output by hand."""
    return {"input_ids": torch.tensor(ids), **more}


def test_a_square_image_is_told_by_its_grid(tiny: Subject) -> None:
    """112 px are 8 x 8 patches of 14 px, and 4 x 4 tokens."""
    (batch,) = batching.batches(tiny, samples(["?", "what?"]), batch_size=2, image_size=112)
    assert batch.fed == ((Fed(width=112, height=112, tokens=16),),) * 2
    assert batch.image_tokens == (16, 16)


def test_grids_tell_several_images_and_a_video_of_one_sample(tiny: Subject) -> None:
    """(1, 2, 4) and (1, 4, 4) patches are 2 and 4 tokens, (2, 2, 4) of a video of four frames 4; a row has none."""
    image, video = tiny.image_token_id, tiny.video_token_id
    assert image is not None
    assert video is not None
    rows = [[image] * 6 + [video] * 4, [7] * 10]
    output = made(rows, image_grid_thw=torch.tensor([[1, 2, 4], [1, 4, 4]]), video_grid_thw=torch.tensor([[2, 2, 4]]))
    assert fed(tiny, output, [shown((9, 9), (9, 9), frames=3), shown()]) == (
        (
            Fed(width=56, height=28, tokens=2),
            Fed(width=56, height=56, tokens=4),
            Fed(width=56, height=28, frames=4, tokens=4),
        ),
        (),
    )


IMAGE = 5
OTHER = Subject(
    model=type("Model", (), {"config": type("Config", (), {"image_token_id": IMAGE})()})(),
    processor=type("Processor", (), {"tokenizer": None})(),
)
"""A family whose images are told by tensors alone."""


def test_a_size_that_is_told_beside_the_pixels_is_taken() -> None:
    """Pixtral gives (height, width) of each image, and pads the pixels to the largest."""
    output = made([[IMAGE] * 3], image_sizes=torch.tensor([[32, 48]]), pixel_values=torch.zeros(1, 3, 64, 64))
    assert fed(OTHER, output, [shown((300, 200))]) == ((Fed(width=48, height=32, tokens=3),),)


def test_pixels_of_one_size_tell_it() -> None:
    """LLaVA's processor crops to 56 x 28 whatever it gets; two images of equal size share the row's tokens."""
    output = made([[1, 1, IMAGE, IMAGE], [IMAGE] * 4], pixel_values=torch.zeros(3, 3, 28, 56))
    one = Fed(width=56, height=28, tokens=2)
    assert fed(OTHER, output, [shown((9, 5)), shown((9, 5), (5, 9))]) == ((one,), (one, one))


def test_a_padded_image_is_told_by_its_mask() -> None:
    """Idefics2 pads to the largest of the batch; what is real of 8 x 8 is 6 wide and 4 high."""
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    mask[:, :, :4, :6] = 1
    output = made([[IMAGE]], pixel_values=torch.zeros(1, 1, 3, 8, 8), pixel_attention_mask=mask)
    assert fed(OTHER, output, [shown((60, 40))]) == ((Fed(width=6, height=4, tokens=1),),)


def test_tiles_leave_the_size_that_the_processor_was_given() -> None:
    """Five tiles of one picture; how two pictures of different sizes share eight tokens is not told."""
    output = made([[IMAGE] * 5], pixel_values=torch.zeros(1, 5, 3, 28, 28))
    assert fed(OTHER, output, [shown((60, 40))]) == ((Fed(width=60, height=40, tokens=5),),)
    output = made([[IMAGE] * 8], pixel_values=torch.zeros(1, 5, 3, 28, 28))
    two = (Fed(width=60, height=40), Fed(width=20, height=20))
    assert fed(OTHER, output, [shown((60, 40), (20, 20))]) == (two,)


def test_a_family_whose_prompts_hold_no_image_tells_no_tokens() -> None:
    """The image enters elsewhere: no tokens is no figure, not 0."""
    bare = Subject(model=type("Model", (), {"config": object()})(), processor=OTHER.processor)
    output = made([[1, 2]], pixel_values=torch.zeros(1, 3, 28, 28))
    assert fed(bare, output, [shown((60, 40))]) == ((Fed(width=28, height=28, tokens=None),),)
