"""What is profiled: a live model, what prepares its inputs, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from layerprof.models.attention import Plan
from layerprof.models.source import QWEN_VL


@dataclass(frozen=True)
class Subject:
    """What is profiled: a live model, what prepares its inputs, and where they came from.

    `attention` is what its towers were told to run; None where somebody else loaded it.
    """

    model: Any
    processor: Any
    provenance: dict[str, Any] = field(default_factory=dict)
    optimization: str = "eager"
    attention: Plan | None = None

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer; the processor itself where it is one."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def takes_images(self) -> bool:
        """Whether the processor prepares images."""
        return getattr(self.processor, "image_processor", None) is not None

    @property
    def is_qwen_vl(self) -> bool:
        """Whether the model belongs to the Qwen vision-language family."""
        return getattr(self.model.config, "model_type", "") in QWEN_VL and self.takes_images

    @property
    def cell_px(self) -> int | None:
        """Pixels along one image token's side, patch x merge, for the Qwen family."""
        if not self.is_qwen_vl:
            return None
        images = self.processor.image_processor
        return int(images.patch_size) * int(images.merge_size)

    @cached_property
    def device(self) -> str:
        """The device of the model's weights: `cpu` or `cuda:N`."""
        return str(next(self.model.parameters()).device)

    @property
    def dtype(self) -> Any:
        """The torch dtype of the model's weights."""
        return next(weight.dtype for weight in self.model.parameters() if weight.is_floating_point())

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an answer, from the generation config, the model's config or the tokenizer."""
        text = self.model.config.get_text_config() if hasattr(self.model.config, "get_text_config") else None
        for owner in (getattr(self.model, "generation_config", None), text, self.tokenizer):
            ids = getattr(owner, "eos_token_id", None)
            if ids is not None:
                return tuple(ids) if isinstance(ids, (list, tuple)) else (int(ids),)
        return ()

    @property
    def pad_id(self) -> int:
        """Id that fills short rows; the first end id (or 0) where the tokenizer has none."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else next(iter(self.eos_ids), 0))

    @property
    def image_token_id(self) -> int | None:
        """Id that stands for one image token in a prompt."""
        return self._token("image")

    @property
    def video_token_id(self) -> int | None:
        """Id that stands for one token of a video in a prompt; None where the family has none of its own."""
        return self._token("video")

    def _token(self, kind: str) -> int | None:
        for owner in (self.model.config, self.processor):
            for name in (f"{kind}_token_id", f"{kind}_token_index"):
                value = getattr(owner, name, None)
                if value is not None:
                    return int(value)
        return None
