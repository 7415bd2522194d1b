"""Model -> layers, by structure: the units that get a row, for any model with repeated blocks.

Nothing here knows a model by name. A *block* is an element of a list of modules that mix positions and hold further
matrices (attention and MLP); a model without such lists falls back to any repeated module. A block's *tower* is told
by what lies around it: pixels (a convolution over patches, `input_modalities`), tokens (an embedding table), and
only then by words in attribute and class names. What is left over between the blocks is the *named rest*: every
largest module that holds parameters and no block gets a row of its own, so that little runs under no layer at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from layerprof.errors import RequestError
from layerprof.records import Layer, Tower
from layerprof.selector import Selector, parse_selector, select

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Selector", "find_layers", "parse_selector", "select"]

MIXES_POSITIONS = re.compile(r"att(entio)?n|mixer|mamba|ssm|rwkv|retention|hyena|recurrent|lstm|gru|fourier", re.I)
CONNECTS_TOWERS = re.compile(
    r"merger|projector|connector|connection|resampler|perceiver|q_?former|adapter|aligner|abstractor|(^|_)mm_|multi_?modal"
    r"|vision_proj|visual_proj|image_proj|language_proj",
    re.I,
)
SEES_PIXELS = re.compile(r"(^|_)(visual|vision|vit|image|img|pixel|video)(_|\d|$)")
SEES_PIXELS_CLASS = re.compile(r"Vision|Visual|ViT|Image|Video|Pixel")
SEES_TOKENS = re.compile(r"(^|_)(language|text|llm|lm|decoder|gpt)(_|\d|$)")
SEES_TOKENS_CLASS = re.compile(r"Text|Language|Decoder|CausalLM|GPT")
HEARS_SOUND = re.compile(r"(^|_)(audio|speech|sound|acoustic)(_|\d|$)")
NOT_TOKENS = re.compile(r"pos|type|tile|aspect|segment|time|query|class|cls|point", re.I)
EARLY = re.compile(r"(^|_)pre|pre(_|$)|emb", re.I)

ORDER = ("patch_embed", "embed_tokens", "pos_embed", "rotary", "blocks", "norm", "merger", "other", "head", "lm_head")


def find_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Find the layers of a model, in order of execution: vision, then language.

    Works on any module tree: wrapped (DataParallel, PEFT, `torch.compile`), with shared modules (listed once, under the
    first name), text-only, vision-only, mixture-of-experts, cross-attention. A family whose towers cannot be told
    apart gets all its layers under `language`. Raises RequestError when no submodule holds a parameter.
    """
    tree = _Tree(model)
    found = sorted(_ranked(tree), key=lambda unit: unit[:3])
    layers = []
    counts: dict[tuple[Tower, str], int] = {}
    for _, _, _, name, tower, kind in found:
        index = counts.get((tower, kind), 0)
        counts[(tower, kind)] = index + 1
        layers.append(Layer(name=name, tower=tower, kind=kind, index=index))
    if not layers:
        raise RequestError(
            f"{type(model).__name__} has no layers to profile: no submodule of it holds parameters.",
            "Pass a model that is built of modules, such as a transformers model or an nn.Sequential of blocks.",
        )
    return tuple(layers)


def _ranked(tree: _Tree) -> Iterator[tuple[int, int, int, str, Tower, str]]:
    """Yield (tower, stage, position, name, tower, kind); the first three sort into order of execution."""
    position = {name: i for i, name in enumerate(tree.modules)}
    for name in tree.blocks:
        tower = tree.tower(name)
        stage = ORDER.index("blocks")
        # An encoder runs before the decoder that reads it, whatever their order in the module.
        block = "vision_block" if tower == "vision" else "decoder_layer" if tree.decodes(name) else "encoder_layer"
        yield (tower == "language", stage * 2 + (block == "decoder_layer"), position[name], name, tower, block)
    for name in tree.rest:
        tower = tree.tower(name)
        kind = tree.rest_kind(name, tower)
        if kind is None:
            continue
        early = kind == "norm" and EARLY.search(name.rpartition(".")[2])
        stage = ORDER.index("rotary" if early else kind)
        yield (tower == "language", stage * 2, position[name], name, tower, kind)


class _Tree:
    """The module tree of a model, with what its parts contain."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: dict[str, nn.Module] = dict(model.named_modules())
        self.children: dict[str, list[str]] = {name: [] for name in self.modules}
        for name in self.modules:
            if name:
                self.children[name.rpartition(".")[0]].append(name)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of the repeated blocks, in module order."""
        lists = list(self._block_lists("", strong=True))
        size = self.parameters("")
        covered = {parent for parent, _ in lists}
        for parent, members in self._block_lists("", strong=False):
            large = sum(self.parameters(m) for m in members) >= 0.2 * size
            apart = not any(_is_under(c, parent) or _is_under(parent, c) for c in covered)
            if not lists or (large and apart):
                lists.append((parent, members))
        found = {m for _, members in lists for m in members}
        return tuple(name for name in self.modules if name in found)

    def _block_lists(self, name: str, strong: bool) -> Iterator[tuple[str, list[str]]]:
        """Yield (parent, members) of the outermost lists of blocks below `name`; stages are entered."""
        kids = self.children[name]
        members = [k for k in kids if self._may_be_block(k, strong)]
        listed = self.is_container(name) or self._is_sequence(name)
        repeated = len({self.kind_of(m) for m in members}) < len(members)
        enough = (repeated or (listed and strong)) and not CONNECTS_TOWERS.search(name)
        if members and enough and not (strong and all(self._is_stage(m) for m in members)):
            yield name, members
            kids = [k for k in kids if k not in members]
        for kid in kids:
            if not CONNECTS_TOWERS.search(kid):
                yield from self._block_lists(kid, strong)

    def _may_be_block(self, name: str, strong: bool) -> bool:
        if self.is_container(name) or not self.children[name] or not self.parameters(name):
            return False
        if not strong:
            return not CONNECTS_TOWERS.search(name) and not self._is_norm(name)
        return self._mixes(name) and self._has_matrix_beside_mixer(name)

    def _mixes(self, name: str) -> bool:
        return any(self._is_mixer(kid) or self._mixes(kid) for kid in self.children[name])

    def _is_mixer(self, name: str) -> bool:
        own = name.rpartition(".")[2]
        named = MIXES_POSITIONS.search(own) or MIXES_POSITIONS.search(self.kind_of(name))
        return bool(named) and not self._is_norm(name)

    def _has_matrix_beside_mixer(self, name: str) -> bool:
        if any(p.ndim >= 2 for p in self.modules[name].parameters(recurse=False)):
            return True
        # Only the innermost part that mixes is left out: GPT-2's `attn`, but not a block inside a block.
        return any(
            self._has_matrix_beside_mixer(kid)
            for kid in self.children[name]
            if not self._is_mixer(kid) or self._contains_block(kid)
        )

    def _contains_block(self, name: str) -> bool:
        return any(
            self._may_be_block(kid, strong=True) or self._contains_block(kid)
            for kid in self.children[name]
            if not self._is_mixer(kid)
        )

    def _is_stage(self, name: str) -> bool:
        """Tell whether a list's element is itself made of lists of blocks (Swin's stages)."""
        return next(self._block_lists(name, strong=True), None) is not None

    @cached_property
    def rest(self) -> tuple[str, ...]:
        """Names of the largest modules that hold no block and are no part of one."""
        return tuple(self._outermost_rest("", frozenset(self.blocks)))

    def _outermost_rest(self, name: str, blocks: frozenset[str]) -> Iterator[str]:
        for kid in self.children[name]:
            if kid in blocks:
                continue
            if self.is_container(kid) or self.is_wrapper(kid) or any(_is_under(b, kid) for b in blocks):
                # A connector's own blocks are part of the connector, not of a tower: see `_block_lists`.
                yield from self._outermost_rest(kid, blocks)
            else:
                yield kid

    def tower(self, name: str) -> Tower:
        """Tell a tower by what the surroundings of a module see, innermost first; `language` when nothing tells."""
        if self.sees_pixels and not self.sees_tokens:
            return "vision"
        if CONNECTS_TOWERS.search(name.rpartition(".")[2]) and self.sees_pixels:
            return "vision"
        for place in _ancestors(name):
            told = self._tower_by_kind(place) or self._tower_by_content(place)
            if told:
                return told
        return "language"

    def _tower_by_kind(self, name: str) -> Tower | None:
        module, own = self.modules[name], name.rpartition(".")[2]
        modalities = set(_as_tuple(getattr(module, "input_modalities", ())))
        if modalities & {"image", "video"} and "text" not in modalities:
            return "vision"
        if HEARS_SOUND.search(own):
            return "language"
        if SEES_PIXELS.search(own):
            return "vision"
        if SEES_TOKENS.search(own):
            return "language"
        if not name:  # a root's class says what the whole is ("VisionEncoderDecoderModel"), not what a part is
            return None
        pixels, tokens = (bool(r.search(self.kind_of(name))) for r in (SEES_PIXELS_CLASS, SEES_TOKENS_CLASS))
        return None if pixels == tokens else "vision" if pixels else "language"

    def _tower_by_content(self, name: str) -> Tower | None:
        pixels, tokens = self.pixels_in(name), self.tokens_in(name)
        return None if pixels == tokens else "vision" if pixels else "language"

    @cached_property
    def sees_pixels(self) -> bool:
        """Whether any part of the model reads images."""
        named = any(SEES_PIXELS.search(name.rpartition(".")[2]) for name in self.modules)
        root = getattr(self.model, "main_input_name", None) == "pixel_values"
        return named or root or self.pixels_in("")

    @cached_property
    def sees_tokens(self) -> bool:
        """Whether any part of the model reads tokens."""
        return self.tokens_in("")

    def pixels_in(self, name: str) -> bool:
        """Whether a 2-D or 3-D convolution lies at or below a module."""
        return any(type(m).__name__ in ("Conv2d", "Conv3d") for m in self.modules[name].modules())

    def tokens_in(self, name: str) -> bool:
        """Whether a table of token embeddings lies at or below a module."""
        return any(self._is_token_table(n) for n in self.modules if _is_under(n, name))

    def _is_token_table(self, name: str) -> bool:
        module, own = self.modules[name], name.rpartition(".")[2]
        rows = getattr(module, "num_embeddings", None)
        if rows is None or NOT_TOKENS.search(own):
            return False
        vocabulary = _vocabulary(self.model)
        return vocabulary is None or rows >= vocabulary

    def decodes(self, name: str) -> bool:
        """Whether a language block belongs to a decoder; encoders say so in the names or classes around them."""
        for place in _ancestors(name):
            text = f"{place.rpartition('.')[2]} {self.kind_of(place)}".lower()
            if place and "decoder" in text:
                return True
            if place and ("encoder" in text or HEARS_SOUND.search(place.rpartition(".")[2])):
                return False
        config = getattr(self.model, "config", None)
        architecture = " ".join(getattr(config, "architectures", None) or ()) + self.kind_of("")
        # BERT and its like: bidirectional, so no decoder, though no name around the blocks says encoder.
        return not re.search(r"MaskedLM|Bert(?!.*LMHead)", architecture)

    def rest_kind(self, name: str, tower: Tower) -> str | None:
        """Name the kind of a module that is no block; None for those that do no work of their own."""
        module, own = self.modules[name], name.rpartition(".")[2]
        head = module is _output_table(self.model) or re.search(r"lm_head|embed_out|output_projection", own)
        tests = {
            "rotary": re.search(r"rotary|rope", own + self.kind_of(name), re.I),
            None: not self.parameters(name),
            "lm_head": head,
            "merger": CONNECTS_TOWERS.search(name) and self.sees_pixels,
            "norm": self._is_norm(name),
        }
        told = [kind for kind, applies in tests.items() if applies]
        if told:
            return told[0]
        return self._vision_rest(name, own) if tower == "vision" else self._language_rest(name, own)

    def _vision_rest(self, name: str, own: str) -> str:
        if self.pixels_in(name) or re.search(r"patch|^embeddings?$|stem", own):
            return "patch_embed"
        if re.search(r"pos|emb|tile|aspect", own, re.I):
            return "pos_embed"
        if re.search(r"pool|head|classifier|^fc$", own):
            return "head"
        return "merger" if self.sees_tokens and re.search(r"proj|linear|mlp", own) else "other"

    def _language_rest(self, name: str, own: str) -> str:
        if self.tokens_in(name):
            return "embed_tokens"
        if re.search(r"pos|type|emb", own, re.I):
            return "pos_embed"
        return "head" if re.search(r"pool|head|classifier|score", own) else "other"

    def is_container(self, name: str) -> bool:
        """Whether a module only holds others and is never called itself."""
        return type(self.modules[name]).__name__ in ("ModuleList", "ModuleDict")

    def is_wrapper(self, name: str) -> bool:
        """Whether a module only passes on to the one module inside it."""
        kids = self.children[name]
        return len(kids) == 1 and kids[0].rpartition(".")[2] in ("_orig_mod", "module", "base_model")

    def _is_sequence(self, name: str) -> bool:
        kids = [kid.rpartition(".")[2] for kid in self.children[name]]
        return bool(kids) and kids == [str(i) for i in range(len(kids))]

    def _is_norm(self, name: str) -> bool:
        own, kind = name.rpartition(".")[2], self.kind_of(name)
        flat = all(p.ndim <= 1 for p in self.modules[name].parameters())
        return flat and bool(re.search(r"norm|(^|_)ln(_|\d|$)|layrnorm", own, re.I) or "Norm" in kind)

    def kind_of(self, name: str) -> str:
        """Class name of a module, seen through `torch.compile`'s wrapper."""
        module = self.modules[name]
        return type(getattr(module, "_orig_mod", module)).__name__

    def parameters(self, name: str) -> int:
        """Count the parameters at and below a module."""
        if name not in self._counts:
            self._counts[name] = sum(p.numel() for p in self.modules[name].parameters())
        return self._counts[name]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {}


def _is_under(name: str, place: str) -> bool:
    return not place or name == place or name.startswith(place + ".")


def _ancestors(name: str) -> Iterator[str]:
    """Yield a name and those of the modules around it, innermost first; the root's is empty."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _as_tuple(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()


def _vocabulary(model: nn.Module) -> int | None:
    """Smallest vocabulary that the configuration names; None for models without a configuration."""
    config = getattr(model, "config", None)
    text = getattr(config, "get_text_config", None)
    if text is None:
        return None
    sizes = [getattr(c, "vocab_size", None) for c in (config, text())]
    known = [s for s in sizes if isinstance(s, int) and s > 0]
    return min(known) if known else 1 << 62


def _output_table(model: nn.Module) -> nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    try:
        table: nn.Module | None = get() if get else None
    except (AttributeError, NotImplementedError):  # transformers offers the method on models that have no head
        return None
    return table
