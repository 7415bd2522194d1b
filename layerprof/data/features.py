"""Rows -> tensors as the model takes them: square images, chat prompts, left padding, all checked.

Images of the Qwen family are made square, `image_size` x `image_size` (a picture that is not square is stretched),
which gives exactly (image_size / cell)^2 image tokens. Other families' processors resize by rules of their own: their
pictures are made square first where the processor's output depends on the size, and left alone where it does not;
image tokens are then counted in the prompt.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from layerprof.data.pictures import square
from layerprof.errors import RequestError, RunFailedError
from layerprof.settings import ImageSize

if TYPE_CHECKING:
    from PIL import Image

    from layerprof.models.subject import Subject

OWN_LOOP = "Prepare the inputs yourself and use layerprof.LayerProfiler around your own generate()."


def features(subject: Subject, texts: list[str], pictures: list[Image.Image], sizing: int | None) -> Any:
    """Return the processor's output for rows of prompts and their RGB pictures, checked; it lies on the host.

    `sizing` is what `side_of` says. Raises RequestError for what the processor refuses, RunFailedError when it gives
    other tensors than asked for.
    """
    images = [_sized(subject, picture, sizing) for picture in pictures]
    made = processed(subject, texts, images)
    check_left_padding(made["attention_mask"])
    if subject.cell_px is not None and images:
        _check_grid(subject, made, len(images), sizing)
    return made


# --- text -------------------------------------------------------------------------------------------------------


def chat(subject: Subject, text: str, with_image: bool, image_token: str | None = None) -> str:
    """Return the prompt of one row through the model's chat template; without a template, image token and text.

    Special tokens inside the user's text are taken out: they would count as images or end the turn. `image_token` is
    what `image_mark` says; the processor's own unless given.
    """
    for token in _special(subject):
        text = text.replace(token, "")
    owner = subject.processor if getattr(subject.processor, "chat_template", None) else subject.tokenizer
    pictured = with_image and subject.takes_images
    token = _image_token(subject) if image_token is None else image_token
    if not getattr(owner, "chat_template", None):
        return f"{token}\n{text}\n" if pictured and token else f"{text}\n"
    parts: list[dict[str, str]] = [{"type": "image"}] * pictured + [{"type": "text", "text": text}]
    prompt = _templated(owner, parts if subject.takes_images else text)
    if pictured and token not in prompt:  # a template of the text model alone, which knows of no images
        prompt = _templated(owner, f"{token}\n{text}")
    return prompt


def _image_token(subject: Subject) -> str:
    return str(getattr(subject.processor, "image_token", None) or "")


def image_mark(subject: Subject) -> str:
    """Return what stands for the image in a prompt that no template of the processor writes; empty for nothing.

    Some processors put the image's tokens before any text themselves (BLIP-2, Florence-2), and a token written into
    the prompt would be one too many, so both ways are tried.
    """
    token = _image_token(subject)
    told = subject.image_token_id is not None  # else there is nothing to count
    if not subject.takes_images or not token or not told or getattr(subject.processor, "chat_template", None):
        return token
    bare, marked = (_image_tokens_in(subject, text) for text in ("a", f"{token}\na"))
    return "" if bare and (marked is None or marked > bare) else token


def _image_tokens_in(subject: Subject, text: str) -> int | None:
    """Count the image tokens of one processed prompt about a blank picture; None where the processor refuses it."""
    from PIL import Image

    try:
        ids = processed(subject, [text], [Image.new("RGB", (64, 64))])["input_ids"]
    except RequestError:
        return None
    return int((ids == subject.image_token_id).sum())


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
        OWN_LOOP,
    )


def _special(subject: Subject) -> set[str]:
    names = ("image_token", "video_token", "boi_token", "eoi_token")
    own = {getattr(subject.processor, name, None) for name in names}
    return {str(token) for token in own | set(subject.tokenizer.all_special_tokens) if token}


def processed(subject: Subject, texts: list[str], images: list[Image.Image]) -> Any:
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
    features = _called(subject, asked)
    kinds = "mm_token_type_ids"
    if kinds not in features and kinds in inspect.signature(subject.model.forward).parameters:
        features = _called(subject, asked | {f"return_{kinds}": True})
    absent = [name for name in ("input_ids", "attention_mask") if name not in features]
    if absent:
        raise RequestError(
            f"The model's processor makes no {' and no '.join(absent)} of a question (it gives {', '.join(features)}).",
            OWN_LOOP,
        )
    if subject.takes_images:
        return features
    features.pop("token_type_ids", None)  # of encoders; generate() refuses what a decoder does not use
    return _movable(features)


def _called(subject: Subject, asked: dict[str, Any]) -> Any:
    """Call the processor, with its images one by one where it does not take them by sample (GOT-OCR)."""
    try:
        return subject.processor(**asked)
    except Exception as error:  # each family's processor has its own ways of refusing
        images = asked.get("images", [])
        if any(isinstance(image, list) for image in images):
            with suppress(Exception):
                return subject.processor(**asked | {"images": [image for sample in images for image in sample]})
        raise _refused("processor", error) from error


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


def _sized(subject: Subject, picture: Image.Image, sizing: int | None) -> Image.Image:
    if sizing is None:
        return picture
    return square(picture, sizing, patch=_patch(subject) if subject.is_qwen_vl else None)


def _patch(subject: Subject) -> int:
    return int(subject.processor.image_processor.patch_size)


def side_of(subject: Subject, image_size: ImageSize) -> int | None:
    """Return the side that images are given, None where the processor's output does not depend on it."""
    if image_size == "native":
        return None
    if not subject.takes_images or subject.is_qwen_vl:
        return image_size
    one, other = (_image_shapes(subject, side) for side in (image_size, 3 * image_size))
    return None if one == other else image_size


def _image_shapes(subject: Subject, side: int) -> list[tuple[int, ...]]:
    """Return the shapes of all that the image processor makes of a blank square picture, whatever their names."""
    from PIL import Image

    try:
        made = subject.processor.image_processor(Image.new("RGB", (side, side)), return_tensors="pt")
    except Exception as error:  # as with whole prompts
        raise _refused("image processor", error) from error
    parts = [made] if hasattr(made, "shape") else made.values()  # Idefics gives the pixels alone
    return [tuple(value.shape) for value in parts if hasattr(value, "shape")]


def _check_grid(subject: Subject, features: Any, rows: int, image_size: int | None) -> None:
    """Hold the processor to (1, s / patch, s / patch) per image: some versions resize although told not to."""
    side = (image_size or 0) // _patch(subject)
    grids = features["image_grid_thw"].tolist()
    if grids != [[1, side, side]] * rows:
        raise RunFailedError(
            f"The image processor made grids {grids[:3]} of {image_size} px images; {[1, side, side]} was due.",
            "Another version of transformers may do; say which one this is when reporting it.",
        )
