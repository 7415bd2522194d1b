"""A row's text -> the prompt that a model was taught: its chat template, with a mark for each image and video."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layerprof.errors import RequestError

if TYPE_CHECKING:
    from layerprof.models.subject import Subject

OWN_LOOP = "Prepare the inputs yourself and use layerprof.LayerProfiler around your own generate()."


def chat(subject: Subject, text: str, images: int = 0, video: bool = False, image_token: str | None = None) -> str:
    """Return the prompt of one row through the model's chat template; without a template, image tokens and text.

    Special tokens inside the user's text are taken out: they would count as images or end the turn. `image_token` is
    what `image_mark` says; the processor's own unless given. Images stand before the video, and it before the text.
    """
    for token in _special(subject):
        text = text.replace(token, "")
    owner = subject.processor if getattr(subject.processor, "chat_template", None) else subject.tokenizer
    images, video = (images, video) if subject.takes_images else (0, False)
    token = own_token(subject) if image_token is None else image_token
    moving = str(getattr(subject.processor, "video_token", None) or "")
    marks = [token] * (images if token else 0) + [moving] * (video and bool(moving))
    marked = "".join(f"{mark}\n" for mark in marks) + text
    if not getattr(owner, "chat_template", None):
        return f"{marked}\n"
    kinds = ["image"] * images + ["video"] * video
    parts: list[dict[str, str]] = [*({"type": kind} for kind in kinds), {"type": "text", "text": text}]
    prompt = _templated(owner, parts if subject.takes_images else text)
    if images and token not in prompt:  # a template of the text model alone, which knows of no images
        prompt = _templated(owner, marked)
    return prompt


def own_token(subject: Subject) -> str:
    """Return what the processor replaces by an image's tokens; empty where it says nothing."""
    return str(getattr(subject.processor, "image_token", None) or "")


def image_mark(subject: Subject, tokens_in: Callable[[str], int | None]) -> str:
    """Return what stands for the image in a prompt that no template of the processor writes; empty for nothing.

    Some processors put the image's tokens before any text themselves (BLIP-2, Florence-2), and a token written into
    the prompt would be one too many, so both ways are tried: `tokens_in` counts the image tokens of one prompt about a
    blank picture, None where the processor refuses it.
    """
    token = own_token(subject)
    told = subject.image_token_id is not None  # else there is nothing to count
    if not subject.takes_images or not token or not told or getattr(subject.processor, "chat_template", None):
        return token
    bare, marked = (tokens_in(text) for text in ("a", f"{token}\na"))
    return "" if bare and (marked is None or marked > bare) else token


def _templated(owner: Any, content: str | list[dict[str, str]]) -> str:
    message = [{"role": "user", "content": content}]
    try:
        return str(owner.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates are programs that come with checkpoints, and raise what they like
        raise refused("chat template", error) from error


def refused(part: str, error: Exception) -> RequestError:
    """Return the error for a template or processor that raises."""
    cause = " ".join(str(error).split())[:300]
    return RequestError(
        f"The model's {part} cannot take a question about one image ({type(error).__name__}: {cause}).",
        OWN_LOOP,
    )


def _special(subject: Subject) -> set[str]:
    names = ("image_token", "video_token", "boi_token", "eoi_token")
    own = {getattr(subject.processor, name, None) for name in names}
    return {str(token) for token in own | set(subject.tokenizer.all_special_tokens) if token}
