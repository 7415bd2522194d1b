"""Phases for any layout of hidden states, any kind of memory and any argument."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import odd_layouts
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layerprof.hooks.base import LayerHook
from layerprof.hooks.phases import PhaseTracker
from layerprof.hooks.shapes import ShapesHook
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from layerprof.layers.find import find_layers
from layerprof.models.prompt import prompt_of
from layerprof.readings import Layer
from layerprof.records import Phase

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
PROMPT = 7


class Log(LayerHook):  # type: ignore[misc]  # mypy knows hooks/ by another name
    """Notes phase and step of each call, by layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, find_layers(model))
        self.calls: dict[str, list[tuple[Phase, int]]] = {}

    def started(self, slot: int, phase: Phase) -> None:
        """Note a start."""
        self.calls.setdefault(self.layers[slot].name, []).append((phase, self.tracker.step))

    def kind(self, name: str) -> str | None:
        """Return a layer's kind."""
        return next((layer.kind for layer in self.layers if layer.name == name), None)

    def of(self, *kinds: str) -> list[list[Phase]]:
        """Return the phases of each layer of some kinds."""
        names = [layer.name for layer in self.layers if layer.kind in kinds]
        return [[phase for phase, _ in self.calls[name]] for name in names if name in self.calls]


def ids(rows: int = 2, positions: int = PROMPT) -> Tensor:
    """Make token ids."""
    torch.manual_seed(0)
    return torch.randint(3, 100, (rows, positions))


def generated(model: Any, *, told: bool = True, new: int = 3, **inputs: Any) -> Log:
    """Generate once, the hook knowing the prompt or not."""
    hook = Log(model.eval())
    asked = {**inputs, "max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
    prompt = prompt_of(model, "generate", (), asked) if told else None
    with hook, hook.batch(0, prompt), torch.no_grad():
        model.generate(**asked)
    return hook


# --- layouts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("name", ["gemma3n", "prophetnet", "fsmt", "bart", "whisper", "rwkv", "mamba", "llama"])
def test_three_new_tokens_are_one_prefill_and_two_steps_of_decode(name: str, told: bool, rows: int) -> None:
    """Whatever the layout and the batch: every decoder layer, what follows them, and the table they read with."""
    inputs: dict[str, Any] = {"input_ids": ids(rows), "attention_mask": torch.ones(rows, PROMPT, dtype=torch.long)}
    if name == "whisper":
        inputs = {"input_features": torch.randn(rows, 8, 16)}
    hook = generated(getattr(odd_layouts, name)(), told=told, **inputs)
    layers, rest = hook.of("decoder_layer"), hook.of("lm_head")
    assert layers
    assert rest
    assert all(phases == [PREFILL, DECODE, DECODE] for phases in layers + rest)
    assert all(phases == [PREFILL] for phases in hook.of("encoder_layer"))
    assert [step for phase, step in hook.calls[_first_decoder(hook)] if phase is DECODE] == [1, 2]


def _first_decoder(hook: Log) -> str:
    return next(name for name in hook.calls if hook.kind(name) == "decoder_layer")


@pytest.mark.parametrize("name", ["gemma3n", "fsmt", "llama"])
def test_the_length_of_a_layer_s_input_is_its_positions(name: str) -> None:
    """Padding and the cache's new positions are counted by what the phase goes by: 7 positions of 2 rows, then 1."""
    model = getattr(odd_layouts, name)().eval()
    hook = ShapesHook(model, find_layers(model))
    lengths: dict[str, list[int]] = {}
    close = hook._frames.close

    def closing(slot: int | None, path: str) -> None:
        if slot is not None:
            lengths.setdefault(hook.layers[slot].kind, []).append(hook._frames.of_layer(slot).queries)
        close(slot, path)

    hook._frames.close = closing
    with hook, hook.batch(0), torch.no_grad():
        model.generate(ids(), max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert set(lengths["decoder_layer"]) == ({1} if name == "fsmt" else {PROMPT, 1})
    assert set(lengths.get("encoder_layer", [PROMPT])) == {PROMPT}


def test_positions_first_are_told_by_torch_s_own_layers_alone() -> None:
    """Ids of (positions, rows), as torch's tutorials have them, are no steps of one position."""

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(128, 8)
            self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2))

        def forward(self, tokens: Tensor) -> Tensor:
            hidden = self.embed_tokens(tokens)
            for layer in self.layers:
                hidden = layer(hidden)
            return hidden  # type: ignore[no-any-return]  # nn.Module calls are typed as Any

    hook = Log(Translator().eval())
    with hook, hook.batch(0), torch.no_grad():
        for length in (7, 8):
            hook.model(ids(length, 1))
    assert {phase for calls in hook.calls.values() for phase, _ in calls} == {PREFILL}


def test_padding_in_a_chunk_is_that_of_its_own_positions() -> None:
    """Rows of 7 and 5 real tokens, in chunks of 4 and 3: 12 positions are useful, and of pairs those of real tokens.

    A position does 2 x (2 x 32 x 32 + 2 x 32 x 16 + 3 x 32 x 48) FLOPs in products, a pair 2 x 4 heads x (8 + 8). Row 0
    has 4 x 4 + 3 x 7 pairs, row 1, whose padding of 2 stands first, 2 x 2 + 3 x 5.
    """
    model, mask = odd_layouts.llama().eval(), torch.ones(2, PROMPT, dtype=torch.long)
    mask[1, :2] = 0
    inputs = {"input_ids": ids(), "attention_mask": mask}
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0, prompt_of(model, "generate", (), inputs), attention_mask=mask), torch.no_grad():
        model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, do_sample=False, prefill_chunk_size=4)
    expected = 12 * 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + (37 + 19) * 2 * 4 * (8 + 8)
    assert hook.reading().layers["model.layers.0", PREFILL].flops_useful == expected


# --- the prompt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "chunk"), [(7, 3), (7, 2), (7, 6), (8, 4), (3, 1), (1, 4)])
def test_a_prompt_in_chunks_is_prefill_to_its_last_position(length: int, chunk: int) -> None:
    """The last chunk may be one token; decode begins after it: two steps for three new tokens."""
    hook = generated(odd_layouts.llama(), input_ids=ids(2, length), prefill_chunk_size=chunk)
    chunks = -(-length // chunk)
    for phases in hook.of("embed_tokens", "decoder_layer", "norm"):
        assert phases == [PREFILL] * chunks + [DECODE] * 2


def test_drafted_tokens_are_checked_in_decode() -> None:
    """Prompt lookup drafts several tokens; a step that checks them comes after the prompt, so it is decode."""
    repeating = torch.tensor([[5, 6, 7, 8] * 4])
    hook = generated(odd_layouts.llama(), input_ids=repeating, new=8, prompt_lookup_num_tokens=3)
    for phases in hook.of("embed_tokens", "decoder_layer"):
        assert phases[0] is PREFILL
        assert set(phases[1:]) == {DECODE}


def test_without_a_cache_every_step_is_prefill() -> None:
    """Where nothing is kept, the prompt enters anew with each token."""
    hook = generated(odd_layouts.llama(), input_ids=ids(), use_cache=False)
    assert {phase for phases in hook.of("decoder_layer") for phase in phases} == {PREFILL}


def test_a_prompt_that_is_cached_but_for_one_token_is_prefill_of_that() -> None:
    """A second turn with a cache: its prompt's rest enters first, then it is decoded."""
    model, cache = odd_layouts.llama().eval(), DynamicCache()
    with torch.no_grad():
        model(ids(2, 6), past_key_values=cache)
    hook = generated(model, input_ids=ids(2, 7), past_key_values=cache)
    assert all(phases == [PREFILL, DECODE, DECODE] for phases in hook.of("embed_tokens", "decoder_layer"))


@pytest.mark.parametrize("name", ["llama", "mamba", "rwkv"])
def test_in_a_loop_of_one_s_own_a_filled_memory_tells_decode(name: str) -> None:
    """Each call of the model is a batch of its own: the prompt, then one token with what was remembered."""
    model = getattr(odd_layouts, name)().eval()
    key, given = {"llama": ("past_key_values", None), "mamba": ("cache_params", None), "rwkv": ("state", None)}[name]
    hook = Log(model)
    with hook, torch.no_grad():
        for number, step in enumerate((ids(), ids(2, 1), ids(2, 1))):
            inputs = {"input_ids": step, key: given, "use_cache": True}
            with hook.batch(number, prompt_of(model, "forward", (), inputs)):
                given = getattr(model(**inputs), key)
    assert all(phases == [PREFILL, DECODE, DECODE] for phases in hook.of("embed_tokens", "decoder_layer", "lm_head"))


def test_embeddings_that_come_ready_made_are_read_from_the_first_block() -> None:
    """`inputs_embeds` pass the table by."""
    model = odd_layouts.llama()
    hook = generated(model, inputs_embeds=model.get_input_embeddings()(ids()).detach())
    assert all(phases == [PREFILL, DECODE, DECODE] for phases in hook.of("decoder_layer"))


# --- arguments --------------------------------------------------------------------------------------------------


class Raising:
    """Its shape raises, and so does asking for anything else."""

    @property
    def shape(self) -> Any:
        """Refuse."""
        raise RuntimeError("no shape for you")

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    def __len__(self) -> int:
        raise OSError


class Shaped:
    """Has a `shape` of whatever kind."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


@dataclass
class Bag:
    """Hidden states in a dataclass."""

    hidden: Any


Pair = namedtuple("Pair", "first second")


def jagged() -> Any:
    """Make two sequences of 3 and 5 positions."""
    return torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(5, 8)], layout=torch.jagged)


AWKWARD: dict[str, Any] = {
    "raises": Raising(),
    "a number": Shaped(3),
    "a word": Shaped("(2, 5)"),
    "a list": Shaped([2, 5, 8]),
    "nothing": Shaped(None),
    "words": Shaped(("a", "b", "c")),
    "a shapely class": Shaped,
    "nested": torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(5, 8)], layout=torch.strided),
    "jagged": jagged(),
    "a scalar": torch.tensor(3.0),
    "a vector": torch.ones(4),
    "None": None,
    "an integer": 7,
    "itself": [],
}
AWKWARD["itself"].append(AWKWARD["itself"])


@pytest.mark.parametrize("name", sorted(AWKWARD))
def test_what_only_looks_like_a_tensor_changes_no_call(name: str) -> None:
    """It reaches the layer as it is, in any place; the call is prefill, as nothing says otherwise."""
    value, got = AWKWARD[name], []

    class Takes(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> None:
            got.extend([*args, *kwargs.values()])

    model = nn.ModuleDict({"embed": Takes(), "block": Takes()})
    hook = LayerHook(
        model, (Layer("embed", "language", "embed_tokens", 0), Layer("block", "language", "decoder_layer", 0))
    )
    with hook, hook.batch(0):
        for part in ("embed", "block"):
            model[part](value)
            model[part](hidden_states=value)
            model[part]((value, value), past_key_values=value, state=value)
    assert sum(found is value for found in got) == 8
    assert hook.tracker.phase is PREFILL


def read(*args: Any, **kwargs: Any) -> int | None:
    """Read the positions of one call's input."""
    length: int | None = PhaseTracker().length(args, kwargs)
    return length


X = torch.ones(2, 5, 8)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((X,), {}),
        ((), {"hidden_states": X}),
        ((), {"attention_mask": torch.ones(2, 1, 4, 4), "position_ids": torch.ones(2, 9), "hidden_states": X}),
        ((None, X), {}),
        (((X, torch.ones(2, 9, 9)),), {}),
        ((Pair(X, 3),), {}),
        ((Bag(X),), {}),
        ((BaseModelOutput(last_hidden_state=X),), {}),
        (([{"a": 1, "h": X}],), {}),
        ((nn.Parameter(X),), {}),
        ((X.to_sparse(),), {}),
        ((torch.ones(3, 2, 5, 8),), {}),
        ((torch.ones(2, 5, dtype=torch.long),), {}),
        ((torch.ones(5, 8),), {}),
        ((np.ones((2, 5, 8)),), {}),
        ((np.ones((2, 5), dtype=np.int64),), {}),
        ((Shaped((2, 5, 8)),), {}),
        ((pack_padded_sequence(torch.ones(2, 5, 8), torch.tensor([5, 3]), batch_first=True),), {}),
    ],
)
def test_five_positions_are_found_wherever_they_stand(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """(rows, 5, features) in any structure, (altup, rows, 5, features), ids (rows, 5), packed (5, features)."""
    assert read(*args, **kwargs) == 5


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.integers(),
            st.text(max_size=3),
            st.sampled_from(sorted(AWKWARD)).map(AWKWARD.__getitem__),
            st.lists(st.integers(0, 3), max_size=4).map(torch.zeros),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.text(max_size=2), inner, max_size=2),
            inner.map(Bag),
        ),
        max_leaves=6,
    ),
    st.sampled_from(["hidden_states", "past_key_values", "state", "input_ids", "anything"]),
)
@settings(max_examples=150, deadline=None)
def test_no_argument_makes_a_reader_raise(value: Any, name: str) -> None:
    """Any structure of anything, in any place: a phase is told, and a prompt or none."""
    tracker = PhaseTracker()
    for args, kwargs in (((value,), {}), ((), {name: value}), ((X, value), {name: value})):
        assert tracker.embedding(args, kwargs) in Phase
        assert tracker.step_begins(args, kwargs) in Phase
        for entrance in ("generate", "forward"):
            prompt = prompt_of(nn.Identity(), entrance, args, kwargs)
            assert prompt is None or prompt >= 0


def test_reading_is_seen_by_nobody() -> None:
    """No function mode, no subclass and no property of the caller's is asked for what is read."""
    from torch.overrides import TorchFunctionMode

    seen: list[str] = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    class Sub(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]  # there

    class Asked:
        @property
        def shape(self) -> tuple[int, ...]:
            seen.append("shape")
            return (2, 5, 8)

    tracker, sub = PhaseTracker(), X.as_subclass(Sub)
    seen.clear()
    with Mode():
        for value in (X, X.long(), sub, Asked(), (sub, Asked())):
            before = len(seen)
            tracker.embedding((value,), {})
            tracker.step_begins((value,), {"hidden_states": value})
            prompt_of(nn.Identity(), "forward", (value,), {})
            assert len(seen) == before


def test_sizes_that_are_no_numbers_yet_are_not_asked_for() -> None:
    """Under tracing with symbolic sizes, reading puts no guard on them."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    shapes = ShapeEnv()
    with FakeTensorMode(shape_env=shapes) as mode:
        fake = mode.from_tensor(X, static_shapes=False)
        tracker = PhaseTracker()
        tracker.step_begins((fake,), {})
        tracker.embedding((fake.long(),), {})
        assert prompt_of(nn.Identity(), "forward", (fake,), {}) is None
    assert shapes.guards == []


def test_inside_vmap_an_example_s_own_positions_are_read() -> None:
    """What vmap wraps has the sizes of one example: (positions, features)."""
    found: list[int | None] = []

    def reading(x: Tensor) -> Tensor:
        found.append(read(x))
        return x

    torch.func.vmap(reading)(X)
    assert found == [5]
