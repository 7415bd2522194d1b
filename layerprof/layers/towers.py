"""What a part of a model is: its tower, whether it decodes, the kind of the parts that are no blocks.

Told by what lies in and around a part: pixels (a convolution over patches, `input_modalities`), tokens (an embedding
table), and only then by words in attribute and class names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerprof.layers.tree import CONNECTS_TOWERS, Tree, ancestors, is_under, own_name
from layerprof.machine.modules import told
from layerprof.records import Tower

if TYPE_CHECKING:
    from torch import nn

SEES_PIXELS = re.compile(r"(^|_)(visual|vision|vit|image|img|pixel|video)(_|\d|$)")
SEES_PIXELS_CLASS = re.compile(r"Vision|Visual|ViT|Image|Video|Pixel")
SEES_TOKENS = re.compile(r"(^|_)(language|text|llm|lm|gpt)(_|\d|$)")
SEES_TOKENS_CLASS = re.compile(r"Text|Language|Decoder|CausalLM|GPT")
DECODES = re.compile(r"(^|_)decoder(_|\d|$)")
HEARS_SOUND = re.compile(r"(^|_)(audio|speech|sound|acoustic)(_|\d|$)")
ROTATES = re.compile(r"rotary|(^|_)[a-z]?rope(_|\d|$)", re.I)
ROTATES_CLASS = re.compile(r"Rotary|R[oO]PE|Rope")
NOT_TOKENS = re.compile(r"pos|type|tile|aspect|segment|time|query|class|cls|point", re.I)


class Towers:
    """Names the parts of a model's tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.model = tree.model
        self._towers: dict[str, Tower | None] = {}

    def tower(self, name: str) -> Tower:
        """Tell a tower by what the surroundings of a module see, innermost first; `language` when nothing tells."""
        if _hears_sound(name):
            return "language"
        if self.sees_pixels and not self.sees_tokens:
            return "vision"
        if CONNECTS_TOWERS.search(own_name(name)) and self.sees_pixels:
            return "vision"
        for place in ancestors(name):
            told = self._tower_at(place)
            if told:
                return told
        return "language"

    def _tower_at(self, place: str) -> Tower | None:
        """Tell a tower by one place; many modules lie below it, and ask for the same."""
        if place not in self._towers:
            self._towers[place] = self._tower_by_kind(place) or self._tower_by_content(place)
        return self._towers[place]

    def _tower_by_kind(self, name: str) -> Tower | None:
        own = own_name(name)
        modalities = set(_as_tuple(told(self.tree.modules[name], "input_modalities", ())))
        # The decoder of a model that reads images inherits what its encoder takes.
        if modalities & {"image", "video"} and "text" not in modalities and not self.tokens_in(name):
            return "vision"
        if SEES_PIXELS.search(own):
            return "vision"
        # Autoencoders of pictures have decoders as well, made of convolutions.
        if SEES_TOKENS.search(own) or (DECODES.search(own) and not self._only_pixels_in(name)):
            return "language"
        if not name:  # a root's class says what the whole is ("VisionEncoderDecoderModel"), not what a part is
            return None
        pixels, tokens = (bool(r.search(self.tree.kind_of(name))) for r in (SEES_PIXELS_CLASS, SEES_TOKENS_CLASS))
        if tokens and self._only_pixels_in(name):
            return "vision"
        return None if pixels == tokens else "vision" if pixels else "language"

    def _tower_by_content(self, name: str) -> Tower | None:
        pixels, tokens = self.pixels_in(name), self.tokens_in(name)
        return None if pixels == tokens else "vision" if pixels else "language"

    def _only_pixels_in(self, name: str) -> bool:
        return self.pixels_in(name) and not self.tokens_in(name)

    @cached_property
    def sees_pixels(self) -> bool:
        """Whether any part of the model reads images."""
        named = any(SEES_PIXELS.search(own_name(name)) for name in self.tree.modules)
        root = told(self.model, "main_input_name") == "pixel_values"
        return named or root or self.pixels_in("")

    @cached_property
    def sees_tokens(self) -> bool:
        """Whether any part of the model reads tokens."""
        return self.tokens_in("")

    def pixels_in(self, name: str) -> bool:
        """Whether a 2-D or 3-D convolution lies at or below a module."""
        return self.tree.convolves(name)

    def tokens_in(self, name: str) -> bool:
        """Whether a table of token embeddings lies at or below a module."""
        return any(is_under(table, name) for table in self._token_tables)

    @cached_property
    def _token_tables(self) -> tuple[str, ...]:
        vocabulary = _vocabulary(self.model)
        sizes = {name: told(module, "num_embeddings") for name, module in self.tree.modules.items()}
        return tuple(
            name
            for name, rows in sizes.items()
            if rows is not None and not NOT_TOKENS.search(own_name(name)) and (vocabulary is None or rows >= vocabulary)
        )

    def decodes(self, name: str) -> bool:
        """Whether a language block belongs to a decoder; encoders say so in the names or classes around them."""
        if _hears_sound(name):
            return False
        # BERT as a decoder keeps its encoder's name inside: `text_decoder.bert.encoder.layer.0`.
        if any(DECODES.search(own_name(place)) and "encoder" not in own_name(place) for place in ancestors(name)):
            return True
        config = told(self.model, "config")
        encodes = told(config, "is_encoder_decoder", False) or not told(config, "is_decoder", True)
        if re.search(r"CausalLM|LMHead", self.tree.kind_of("")) and not encodes:
            return True
        for place in ancestors(name):
            text = f"{own_name(place)} {self.tree.kind_of(place)}".lower()
            if place and "decoder" in text:
                return True
            if place and "encoder" in text:
                return False
        architecture = " ".join(_as_tuple(told(config, "architectures"))) + self.tree.kind_of("")
        # BERT and its like: bidirectional, so no decoder, though no name around the blocks says encoder.
        return not re.search(r"MaskedLM|Bert(?!.*LMHead)", architecture)

    def rest_kind(self, name: str, tower: Tower) -> str | None:
        """Name the kind of a module that is no block; None for those that do no work of their own."""
        own = own_name(name)
        tests = {
            "rotary": ROTATES.search(own) or ROTATES_CLASS.search(self.tree.kind_of(name)),
            None: not self.tree.parameters(name),
            "lm_head": self._writes_tokens(name),
            "merger": CONNECTS_TOWERS.search(name) and self.sees_pixels,
            "norm": self.tree.is_norm(name),
        }
        told = [kind for kind, applies in tests.items() if applies]
        if told:
            return told[0]
        return self._vision_rest(name, own) if tower == "vision" else self._language_rest(name, own)

    def _writes_tokens(self, name: str) -> bool:
        if re.search(r"lm_head|embed_out|output_projection|LMHead", f"{own_name(name)} {self.tree.kind_of(name)}"):
            return True
        table = _output_table(self.model)
        return table is not None and any(part is table for part in self.tree.modules[name].modules())

    def _vision_rest(self, name: str, own: str) -> str:
        linear = type(self.tree.modules[name]).__name__ == "Linear"
        embeds = self.pixels_in(name) or re.search(r"patch|^embeddings?$|stem", own)
        tests = (
            ("head", re.search(r"(^|_)heads?(_|$)|classifier|^fc$", own)),
            ("pos_embed", re.search(r"(^|_)pos_?emb", own)),
            ("patch_embed", embeds or (linear and "embed" in own)),  # pixels that come as patches already (Fuyu)
            ("pos_embed", re.search(r"pos|emb|tile|aspect", own, re.I)),
            ("head", re.search(r"pool|head", own)),
            ("merger", self.sees_tokens and re.search(r"proj|linear|mlp", own)),
        )
        return next((kind for kind, applies in tests if applies), "other")

    def _language_rest(self, name: str, own: str) -> str:
        if self.tokens_in(name):
            return "embed_tokens"
        if re.search(r"pos|type|emb", own, re.I):
            return "pos_embed"
        return "head" if re.search(r"pool|head|classifier|score", own) else "other"


def _hears_sound(name: str) -> bool:
    return any(HEARS_SOUND.search(own_name(place)) for place in ancestors(name))


def _as_tuple(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()


def _vocabulary(model: nn.Module) -> int | None:
    """Smallest vocabulary that the configuration names; None for models without a configuration."""
    config = told(model, "config")
    if told(config, "get_text_config") is None:
        return None
    return min(_sizes(config), default=1 << 62)


def _sizes(config: Any) -> Iterator[int]:
    """Yield the vocabularies of a configuration, or, where it has none, those of the configurations inside it."""
    sizes = [getattr(c, "vocab_size", None) for c in (config, config.get_text_config())]
    known = [size for size in sizes if isinstance(size, int) and size > 0]
    yield from known
    if not known:
        for inner in vars(config).values():
            if hasattr(inner, "get_text_config"):
                yield from _sizes(inner)


def _output_table(model: nn.Module) -> nn.Module | None:
    get = told(model, "get_output_embeddings")
    try:
        table: nn.Module | None = get() if get else None
    except Exception:  # transformers offers the method on models that have no head; others may do as they like
        return None
    return table
