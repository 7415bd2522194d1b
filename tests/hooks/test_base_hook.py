"""Hooks on live layers: every call is told with its phase, and nothing stays behind."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import families
import pytest
import torch
from families_base import Family
from layerprof.hooks.base import LayerHook
from layerprof.hooks.energy.capture import CaptureHook
from layerprof.hooks.kernels import KernelsHook
from layerprof.hooks.latency import LatencyHook
from layerprof.hooks.shapes import ShapesHook
from torch import nn

from layerprof.errors import RequestError
from layerprof.layers.find import find_layers
from layerprof.readings import Layer
from layerprof.records import Phase


class Log(LayerHook):  # type: ignore[misc]  # mypy knows hooks/ by another name
    """Notes starts and ends with phase and step."""

    def __init__(self, model: nn.Module, layers: tuple[Layer, ...]) -> None:
        super().__init__(model, layers)
        self.events: list[tuple[str, str, Phase | None, int]] = []

    def started(self, slot: int, phase: Phase) -> None:
        """Note a start."""
        self.events.append(("start", self.layers[slot].name, phase, self.tracker.step))

    def ended(self, slot: int) -> None:
        """Note an end."""
        self.events.append(("end", self.layers[slot].name, None, self.tracker.step))

    def calls(self, kind: str) -> list[tuple[str, Phase | None, int]]:
        """Return (name, phase, step) of the calls of layers of a kind."""
        names = {x.name for x in self.layers if x.kind == kind}
        return [(n, p, s) for what, n, p, s in self.events if what == "start" and n in names]


def logged(family: Family, new_tokens: int = 3) -> Log:
    """Generate once with every found layer attached."""
    hook = Log(family.model, find_layers(family.model))
    with hook, hook.batch(0):
        families.run(family, new_tokens)
    return hook


def hooks_on(model: nn.Module) -> int:
    """Count the forward hooks of all modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_generate_runs_vision_then_prefill_then_decode() -> None:
    """Three new tokens: one vision pass, one prefill, two decode steps for every decoder layer."""
    hook = logged(families.build("qwen2_5_vl"))
    assert [p for _, p, _ in hook.calls("vision_block")] == [Phase.VISION] * 3
    layer = [(p, s) for n, p, s in hook.calls("decoder_layer") if n.endswith(".1")]
    assert layer == [(Phase.PREFILL, 0), (Phase.DECODE, 1), (Phase.DECODE, 2)]
    assert [p for _, p, _ in hook.calls("lm_head")] == [Phase.PREFILL, Phase.DECODE, Phase.DECODE]
    assert [p for _, p, _ in hook.calls("embed_tokens")] == [Phase.PREFILL, Phase.DECODE, Phase.DECODE]


@pytest.mark.parametrize("name", [n for n in sorted(families.FAMILIES) if families.build(n).generates])
def test_every_family_tells_its_phases(name: str) -> None:
    """Each decoder layer runs once in prefill and once for every further token; vision layers only see vision."""
    hook = logged(families.build(name))
    for layer in hook.layers:
        phases = [p for what, n, p, _ in hook.events if what == "start" and n == layer.name]
        if layer.kind == "decoder_layer":
            assert phases == [Phase.PREFILL, Phase.DECODE, Phase.DECODE]
        if layer.tower == "vision":
            assert set(phases) <= {Phase.VISION}
        if layer.kind == "encoder_layer":
            assert phases == [Phase.PREFILL]


def test_a_prompt_of_one_token_is_prefill() -> None:
    """One position with an empty cache is the prompt, not a decode step."""
    family = families.build("llama")
    one = {"input_ids": torch.tensor([[5]]), "attention_mask": torch.tensor([[1]])}
    hook = logged(Family(family.model, one, (0, 2)))
    assert [p for _, p, _ in hook.calls("embed_tokens")] == [Phase.PREFILL, Phase.DECODE, Phase.DECODE]
    assert [p for n, p, _ in hook.calls("decoder_layer") if n.endswith(".0")] == [
        Phase.PREFILL,
        Phase.DECODE,
        Phase.DECODE,
    ]


def test_phases_start_afresh_with_each_batch() -> None:
    """The second batch's prompt of one token is prefill again."""
    family = families.build("llama")
    hook = Log(family.model, find_layers(family.model))
    with hook, torch.no_grad():
        for index in range(2):
            with hook.batch(index):
                family.model.generate(torch.tensor([[5]]), max_new_tokens=2, min_new_tokens=2, do_sample=False)
    first = [(p, s) for n, p, s in hook.calls("decoder_layer") if n.endswith(".0")]
    assert first == [(Phase.PREFILL, 0), (Phase.DECODE, 1)] * 2


def test_a_static_cache_tells_the_same_phases() -> None:
    """A cache allocated at full length is empty until it is written."""
    family = families.build("llama")
    hook = Log(family.model, find_layers(family.model))
    with hook, hook.batch(0), torch.no_grad():
        family.model.generate(
            **family.inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False, cache_implementation="static",
            disable_compile=True,
        )  # fmt: skip
    layer = [(p, s) for n, p, s in hook.calls("decoder_layer") if n.endswith(".0")]
    assert layer == [(Phase.PREFILL, 0), (Phase.DECODE, 1), (Phase.DECODE, 2)]


def test_a_module_called_twice_has_two_calls() -> None:
    """A block that is shared between two places is one layer with both calls."""
    shared, other = nn.Linear(4, 4), nn.Linear(4, 4)
    model = nn.Sequential(shared, other, shared)
    hook = Log(model, (Layer("0", "language", "decoder_layer", 0), Layer("1", "language", "decoder_layer", 1)))
    with hook, hook.batch(0):
        model(torch.ones(1, 3, 4))
    assert [n for what, n, *_ in hook.events if what == "start"] == ["0", "1", "0"]


def test_a_shared_module_answers_to_any_of_its_names() -> None:
    """A layer named by the second of a module's two names is found as well."""
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": shared, "b": shared})
    hook = Log(model, (Layer("b", "language", "module", 0),))
    with hook, hook.batch(0):
        shared(torch.ones(1, 2, 4))
    assert [n for _, n, *_ in hook.events] == ["b", "b"]


def test_a_layer_that_is_not_called_has_no_events() -> None:
    """What does not run is not told."""
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "idle": nn.Linear(4, 4)})
    hook = Log(model, (Layer("used", "language", "module", 0), Layer("idle", "language", "module", 1)))
    with hook, hook.batch(0):
        model["used"](torch.ones(2, 4))
    assert {n for _, n, *_ in hook.events} == {"used"}


def test_a_layer_that_raises_is_ended() -> None:
    """The open call is closed, and the hooks are gone after the error."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 5))
    hook = Log(model, (Layer("0", "language", "module", 0), Layer("1", "language", "module", 1)))
    with pytest.raises(RuntimeError), hook, hook.batch(0):
        model(torch.ones(2, 4))
    assert [(what, n) for what, n, *_ in hook.events] == [("start", "0"), ("end", "0"), ("start", "1"), ("end", "1")]
    assert hooks_on(model) == 0


def test_nothing_stays_on_the_model() -> None:
    """After the block, and after an interrupt inside it, the model has no hook of ours."""
    model = families.build("qwen2_5_vl").model
    hook = Log(model, find_layers(model)).__enter__()
    attached = hooks_on(model)
    hook.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert attached > 0
    assert hooks_on(model) == 0


@pytest.mark.parametrize("kind", [Log, LatencyHook, ShapesHook, KernelsHook, CaptureHook])
def test_an_unknown_layer_leaves_nothing_attached(kind: type[LayerHook]) -> None:
    """Attaching fails as a whole, in whichever hook, and says which layer it is and which may be meant."""
    model = nn.Sequential(OrderedDict(first=nn.Linear(4, 4)))
    known, unknown = Layer("first", "language", "module", 0), Layer("firts", "language", "module", 1)
    with pytest.raises(RequestError, match=r"Sequential has no layer 'firts'.*\n.*Did you mean 'first'"):
        kind(model, (known, unknown)).__enter__()
    assert hooks_on(model) == 0
    assert "forward" not in vars(model.first)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (torch.ones(2, 5, 8), Phase.PREFILL),
        (torch.ones(2, 1, 8), Phase.DECODE),
        (torch.ones(6, 8), Phase.PREFILL),
        (torch.ones(1, 8), Phase.DECODE),
        (torch.ones(2, 6, dtype=torch.long), Phase.PREFILL),
    ],
)
def test_the_query_length_is_read_from_any_layout(inputs: torch.Tensor, expected: Phase) -> None:
    """(rows, positions, features), packed (positions, features), and token ids (rows, positions)."""
    model = nn.ModuleList([nn.Identity()])
    hook = Log(model, (Layer("0", "language", "decoder_layer", 0),))
    with hook, hook.batch(0):
        model[0](torch.ones(1, 3, 8))
        model[0](inputs)
    assert hook.events[2][2] is expected


def test_positions_stand_first_in_torch_s_own_layers() -> None:
    """`nn.TransformerEncoderLayer` without `batch_first` is given (positions, rows, features)."""
    layer: Any = nn.TransformerEncoderLayer(8, 2, 16).eval()
    model = nn.ModuleList([layer])
    hook = Log(model, (Layer("0", "language", "encoder_layer", 0),))
    with hook, hook.batch(0), torch.no_grad():
        layer(torch.ones(7, 1, 8))
        layer(torch.ones(8, 1, 8))
    assert [p for what, _, p, _ in hook.events if what == "start"] == [Phase.PREFILL, Phase.PREFILL]
