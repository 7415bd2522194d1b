"""Rows -> tensors as the model takes them: the processor's call and its output, left-padded, all checked."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from layerprof.data import sizes
from layerprof.data.chat import OWN_LOOP, refused
from layerprof.data.spec import Shown
from layerprof.errors import RequestError, RunFailedError

if TYPE_CHECKING:
    from layerprof.data.sizes import Sizing
    from layerprof.models.subject import Subject

FRAMES_PER_S = 2.0
"""How fast a list of frames is said to pass, which is what Qwen's own tools say of one."""


def features(subject: Subject, texts: list[str], shown: Sequence[Shown], sizing: Sizing) -> Any:
    """Return the processor's output for rows of prompts and their RGB pictures, checked; it lies on the host.

    `sizing` is what `sizes.sizing_of` says. Raises RequestError for what the processor refuses, RunFailedError when it
    gives other tensors than asked for.
    """
    due = [sizes.sized(subject, one, sizing) for one in shown]
    made = processed(subject, texts, due, sizes.settings_of(subject, sizing))
    check_left_padding(made["attention_mask"])
    if subject.is_qwen_vl:
        sizes.check_grids(subject, made, shown, due, sizing)
    else:
        sizes.check_most(subject, made, sizing)
    return made


def processed(subject: Subject, texts: list[str], shown: Sequence[Shown], settings: dict[str, Any]) -> Any:
    """Return the processor's output as it is: models need what others do not have, so nothing is picked out of it.

    `settings` are those of images, and are given where there are any.
    """
    # A template that writes the begin-of-text token itself must not get a second one from the tokenizer.
    begin = subject.tokenizer.bos_token
    special = not (begin and all(text.startswith(begin) for text in texts))
    asked: dict[str, Any] = {"text": texts, "padding": True, "return_tensors": "pt", "add_special_tokens": special}
    asked |= _pictures(subject, shown, settings)
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


def image_tokens_in(subject: Subject, text: str) -> int | None:
    """Count the image tokens of one processed prompt about a blank picture; None where the processor refuses it."""
    from PIL import Image

    try:
        ids = processed(subject, [text], [Shown((Image.new("RGB", (64, 64)),))], {})["input_ids"]
    except RequestError:
        return None
    return int((ids == subject.image_token_id).sum())


def _pictures(subject: Subject, shown: Sequence[Shown], settings: dict[str, Any]) -> dict[str, Any]:
    """Return a processor's arguments for pictures: Qwen's takes images one by one, others take them by sample."""
    asked: dict[str, Any] = {}
    images = [list(one.images) for one in shown]
    if any(images):
        asked["images"] = _flat(images) if subject.is_qwen_vl else images
    if videos := [list(one.frames) for one in shown if one.frames]:
        metadata = [
            {"total_num_frames": len(one), "fps": FRAMES_PER_S, "frames_indices": list(range(len(one)))}
            for one in videos
        ]
        asked |= {"videos": videos, "do_sample_frames": False, "video_metadata": metadata}
        # Unset, it warns of what does not matter here: frames have their size already.
        if getattr(subject.processor.video_processor, "cap_pixels_per_frame", True) is None:
            subject.processor.video_processor.cap_pixels_per_frame = True
    return asked | settings if asked else asked


def _called(subject: Subject, asked: dict[str, Any]) -> Any:
    """Call the processor, with its images one by one where it does not take them by sample (GOT-OCR)."""
    try:
        return subject.processor(**asked)
    except Exception as error:  # each family's processor has its own ways of refusing
        images = asked.get("images", [])
        if any(isinstance(image, list) for image in images):
            with suppress(Exception):
                return subject.processor(**asked | {"images": _flat(images)})
        raise refused("processor", error) from error


def _flat(nested: list[list[Any]]) -> list[Any]:
    return [image for sample in nested for image in sample]


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
