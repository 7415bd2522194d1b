"""Samples -> batches of tensors as the model takes them: square images, chat prompts, left padding, all checked.

Images of the Qwen family are made square, `image_size` x `image_size` (a picture that is not square is stretched),
which gives exactly (image_size / cell)^2 image tokens. Other families' processors resize by rules of their own: their
pictures are made square first where the processor's output depends on the size, and left alone where it does not;
image tokens are then counted in the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerprof import models
from layerprof.budget import Fitted, fit
from layerprof.errors import RequestError, RunFailedError
from layerprof.pictures import rgb, square

if TYPE_CHECKING:
    from PIL import Image

    from layerprof.datasets import Dataset, Example
    from layerprof.models import Subject


@dataclass(frozen=True)
class Batch:
    """Rows that are answered together. `tensors` is the processor's whole output, on the model's device.

    Per row: `prompts` is the user's text, `prompt_tokens` the real tokens (images included), `pad_tokens` the padding
    on the left, `image_tokens` those that stand for the image, `question_cut` the tokens that the budget cut.
    """

    index: int
    examples: tuple[Example, ...]
    tensors: dict[str, Any] = field(repr=False)
    prompts: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    pad_tokens: tuple[int, ...]
    image_tokens: tuple[int, ...]
    question_cut: tuple[int, ...]


def batches(
    subject: Subject, dataset: Dataset, *, batch_size: int = 1, image_size: int = 224, max_input_len: int | None = 200
) -> tuple[Batch, ...]:
    """Return the samples as batches in their order; the last one may be shorter.

    `max_input_len` is a budget on the tokens of a user's text (hint, question, options, instruction; not the image, not
    the chat template): the hint, then the question are cut from their ends; None cuts nothing. A model without a
    processor for images is asked without them.

    Raises NotEnoughTokensError when the budget would cut options or instruction, RequestError for an image size that
    the model does not take, RunFailedError when the processor gives other tensors than asked for.
    """
    if batch_size < 1:
        raise RequestError(f"--batch-size is {batch_size}.", "Give --batch-size 1 or more.")
    models.check_cells(image_size, subject.cell_px)
    fitted = fit(subject.tokenizer, dataset.name, dataset.examples, max_input_len)
    sizing = _sizing(subject, image_size)
    made = []
    for index, start in enumerate(range(0, len(dataset.examples), batch_size)):
        rows = slice(start, start + batch_size)
        made.append(_batch(subject, index, dataset.examples[rows], fitted[rows], sizing))
    return tuple(made)


def image_rule(subject: Subject, image_size: int) -> str:
    """Return in words what becomes of an image of this size, for the user to read."""
    if not subject.takes_images:
        return "no images: the model reads text only"
    cell = subject.cell_px
    if cell is not None:
        return f"{image_size} × {image_size} px (square), {(image_size // cell) ** 2} image tokens"
    if _sizing(subject, image_size) is None:
        return "the processor's own size; --image-size does not change it"
    return f"{image_size} × {image_size} px (square), then the processor's own rule"


def _batch(
    subject: Subject, index: int, examples: Sequence[Example], fitted: Sequence[Fitted], sizing: int | None
) -> Batch:
    images = [_image(subject, example, sizing) for example in examples] if subject.takes_images else []
    texts = [chat(subject, row.text, example.image is not None) for row, example in zip(fitted, examples, strict=True)]
    features = _processed(subject, texts, images)
    mask, ids = features["attention_mask"], features["input_ids"]
    check_left_padding(mask)
    if subject.cell_px is not None and images:
        _check_grid(subject, features, len(images), sizing)
    token = subject.image_token_id
    pictured = (ids == token).sum(1).tolist() if token is not None and images else [0] * len(examples)
    return Batch(
        index=index,
        examples=tuple(examples),
        tensors=dict(features.to(subject.device, subject.dtype)),
        prompts=tuple(row.text for row in fitted),
        prompt_tokens=tuple(mask.sum(1).tolist()),
        pad_tokens=tuple((mask == 0).sum(1).tolist()),
        image_tokens=tuple(pictured),
        question_cut=tuple(row.cut for row in fitted),
    )


# --- text -------------------------------------------------------------------------------------------------------


def chat(subject: Subject, text: str, with_image: bool) -> str:
    """Return the prompt of one row through the model's chat template; without a template, image token and text.

    Special tokens inside the user's text are taken out: they would count as images or end the turn.
    """
    for token in _special(subject):
        text = text.replace(token, "")
    owner = subject.processor if getattr(subject.processor, "chat_template", None) else subject.tokenizer
    pictured = with_image and subject.takes_images
    token = str(getattr(subject.processor, "image_token", None) or "")
    if not getattr(owner, "chat_template", None):
        return f"{token}\n{text}\n" if pictured else f"{text}\n"
    parts: list[dict[str, str]] = [{"type": "image"}] * pictured + [{"type": "text", "text": text}]
    prompt = _templated(owner, parts if subject.takes_images else text)
    if pictured and token not in prompt:  # a template of the text model alone, which knows of no images
        prompt = _templated(owner, f"{token}\n{text}")
    return prompt


def _templated(owner: Any, content: str | list[dict[str, str]]) -> str:
    message = [{"role": "user", "content": content}]
    try:
        return str(owner.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates are programs that come with checkpoints, and raise what they like
        raise _refused("chat template", error) from error


def _refused(part: str, error: Exception) -> RequestError:
    cause = " ".join(str(error).split())[:300]
    return RequestError(
        f"The model's {part} cannot take a question about one image ({type(error).__name__}: {cause}).",
        "Prepare the inputs yourself and use layerprof.LayerProfiler around your own generate().",
    )


def _special(subject: Subject) -> set[str]:
    names = ("image_token", "video_token", "boi_token", "eoi_token")
    own = {getattr(subject.processor, name, None) for name in names}
    return {str(token) for token in own | set(subject.tokenizer.all_special_tokens) if token}


def _processed(subject: Subject, texts: list[str], images: list[Image.Image]) -> Any:
    """Return the processor's output as it is: models need what others do not have, so nothing is picked out of it."""
    # A template that writes the begin-of-text token itself must not get a second one from the tokenizer.
    begin = subject.tokenizer.bos_token
    special = not (begin and all(text.startswith(begin) for text in texts))
    asked: dict[str, Any] = {"text": texts, "padding": True, "return_tensors": "pt", "add_special_tokens": special}
    if images and subject.is_qwen_vl:
        asked |= {"images": images, "do_resize": False}
    elif images:
        asked["images"] = [[image] for image in images]
    subject.tokenizer.padding_side = "left"
    try:
        features = subject.processor(**asked)
    except Exception as error:  # each family's processor has its own ways of refusing
        raise _refused("processor", error) from error
    if subject.takes_images:
        return features
    features.pop("token_type_ids", None)  # of encoders; generate() refuses what a decoder does not use
    return _movable(features)


def _movable(features: Any) -> Any:
    from transformers import BatchFeature

    return BatchFeature(dict(features))


def check_left_padding(mask: Any) -> None:
    """Raise RunFailedError unless every row of a (rows, positions) mask ends in a real token.

    With padding on the right, a decoder writes on from the padding in all rows but the longest.
    """
    short = [row for row, last in enumerate(mask[:, -1].tolist()) if not last]
    if short:
        raise RunFailedError(
            f"The processor padded rows {short} on the right, which spoils their answers.",
            "Set padding_side to left in the checkpoint's tokenizer_config.json.",
        )


# --- images -----------------------------------------------------------------------------------------------------


def _image(subject: Subject, example: Example, sizing: int | None) -> Image.Image:
    if example.image is None:
        raise RequestError(f"Sample {example.id} has no image.", "Leave it out, or profile a text-only model.")
    if sizing is None:
        return rgb(example.image)
    return square(example.image, sizing, patch=_patch(subject) if subject.is_qwen_vl else None)


def _patch(subject: Subject) -> int:
    return int(subject.processor.image_processor.patch_size)


def _sizing(subject: Subject, image_size: int) -> int | None:
    """Return the side that images are given, None where the processor's output does not depend on it."""
    if not subject.takes_images or subject.is_qwen_vl:
        return image_size
    from PIL import Image

    shapes = []
    for side in (image_size, 3 * image_size):
        blank = Image.new("RGB", (side, side))
        shapes.append(tuple(subject.processor.image_processor(blank, return_tensors="pt")["pixel_values"].shape))
    return None if shapes[0] == shapes[1] else image_size


def _check_grid(subject: Subject, features: Any, rows: int, image_size: int | None) -> None:
    """Hold the processor to (1, s / patch, s / patch) per image: some versions resize although told not to."""
    side = (image_size or 0) // _patch(subject)
    grids = features["image_grid_thw"].tolist()
    if grids != [[1, side, side]] * rows:
        raise RunFailedError(
            f"The image processor made grids {grids[:3]} of {image_size} px images; {[1, side, side]} was due.",
            "Another version of transformers may do; say which one this is when reporting it.",
        )
