"""`--optimization graph`: steps are captured once and replayed, answers stay; what cannot be replayed is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fake_graphs import FakeCard
from torch import Tensor, nn
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from layerprof.errors import RunFailedError
from layerprof.layers.find import find_layers
from layerprof.models import decode_graph
from layerprof.models.call_form import changed, put_together, remembered, taken_apart
from layerprof.models.decode_graph import DecodeGraphs, Steps

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
NEW, PROMPT = 8, 5
POSITIONS = PROMPT + NEW - 1


@pytest.fixture
def model() -> Any:
    """Build a text-only decoder of three layers with random weights, whose answers differ by prompt."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL, initializer_range=0.6)).train(False)


def prompt(rows: int = 2, seed: int = 0) -> Tensor:
    """Return token ids (rows, positions)."""
    return torch.randint(2, 64, (rows, PROMPT), generator=torch.Generator().manual_seed(seed))


def answer(model: Any, ids: Tensor, cache: Any = None, new: int = NEW) -> Tensor:
    """Write `new` tokens, with a static cache of generate's own where none is given."""
    held = {"cache_implementation": "static"} if cache is None else {"past_key_values": cache}
    fixed = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "disable_compile": True}
    mask = torch.ones_like(ids)
    mask[0, 0] = 0  # the first row is padded
    written: Tensor = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=0, **held, **fixed)
    return written


def graphed(model: Any, card: FakeCard, positions: int = POSITIONS) -> Any:
    """Capture on the fake card."""
    return decode_graph.graphed_decoder(model, find_layers(model), positions, card)


class Told:
    """A follower that notes what it is told."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @contextmanager
    def captured(self) -> Iterator[str]:
        """Note a capture, and give it a name."""
        self.log.append("capture")
        yield "first"

    @contextmanager
    def replayed(self, captured: str) -> Iterator[None]:
        """Note a replay of a named capture."""
        self.log.append(f"replay {captured}")
        yield


class TestReplays:
    """What runs from a graph."""

    def test_answers_are_the_eager_ones(self, model: Any) -> None:
        """Over several prompts of two row counts, with padding; one capture for each number of rows."""
        prompts = [prompt(rows, seed) for rows in (2, 1) for seed in range(3)]
        expected = [answer(model, ids) for ids in prompts]
        assert len({str(row.tolist()) for row in expected}) == 6, "prompts that are answered alike would prove little"
        card = FakeCard()
        with graphed(model, card) as graphs:
            found = [answer(model, ids, graphs.cache(len(ids))) for ids in prompts]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert (graphs.captures, card.warm_ups) == (2, 2)
        steps = len(prompts) * (NEW - 1)
        assert graphs.replays == card.replays == steps - card.warm_ups, "the first step of each kind runs as it is"

    def test_no_layer_is_called_in_a_replay(self, model: Any) -> None:
        """Hooks fire in prefill, in the first step, and once more in its capture."""
        fired = []
        handle = model.model.layers[1].register_forward_hook(lambda *_: fired.append(1))
        with graphed(model, FakeCard()) as graphs:
            answer(model, prompt(), graphs.cache(2))
        handle.remove()
        assert len(fired) == 3

    def test_the_head_is_called_as_ever(self, model: Any) -> None:
        """It stands outside of what is captured."""
        fired = []
        model.lm_head.register_forward_hook(lambda *_: fired.append(1))
        with graphed(model, FakeCard()) as graphs:
            answer(model, prompt(), graphs.cache(2))
        assert len(fired) == NEW

    def test_steps_under_a_follower_are_captured_anew_and_told(self, model: Any) -> None:
        """Without another warm-up; those that were captured before are left and used afterwards."""
        told, card = Told(), FakeCard()
        expected = answer(model, prompt())
        with graphed(model, card) as graphs:
            answer(model, prompt(), graphs.cache(2))
            with graphs.under(Steps(told)):
                assert torch.equal(answer(model, prompt(), graphs.cache(2)), expected)
            assert torch.equal(answer(model, prompt(), graphs.cache(2)), expected)
        assert told.log == ["capture", *["replay first"] * (NEW - 1)]
        assert (graphs.captures, card.warm_ups) == (2, 1)

    def test_eager_runs_every_step_as_it_is(self, model: Any) -> None:
        """On the same cache, so that shapes are the same."""
        card = FakeCard()
        expected = answer(model, prompt())
        with graphed(model, card) as graphs:
            with graphs.eager():
                assert torch.equal(answer(model, prompt(), graphs.cache(2)), expected)
            assert graphs.captures == card.warm_ups == 0
            assert torch.equal(answer(model, prompt(), graphs.cache(2)), expected)
        assert graphs.captures == 1

    def test_another_cache_is_left_alone(self, model: Any) -> None:
        """A user of the model in between, with a cache of generate's own."""
        expected = answer(model, prompt())
        with graphed(model, FakeCard()) as graphs:
            answer(model, prompt(), graphs.cache(2))
            before = graphs.replays
            assert torch.equal(answer(model, prompt()), expected)
        assert graphs.replays == before

    def test_an_answer_that_was_broken_off_leaves_nothing(self, model: Any) -> None:
        """The next one has an empty cache."""
        expected = answer(model, prompt(seed=1))
        with graphed(model, FakeCard()) as graphs:
            answer(model, prompt(), graphs.cache(2), new=3)
            assert torch.equal(answer(model, prompt(seed=1), graphs.cache(2)), expected)

    def test_the_model_is_as_before(self, model: Any) -> None:
        """Nothing of ours stays behind, also when the block raises."""
        with pytest.raises(ValueError, match="stop"), graphed(model, FakeCard()):
            raise ValueError("stop")
        assert all("forward" not in module.__dict__ for module in model.modules())


class TestRefusals:
    """What cannot be replayed says so, with another way to go."""

    def test_a_step_that_looks_at_its_tensors(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its capture raises in the midst of it; the message has the first line of why, and the decoder's name."""
        forward = type(model.model.layers[2]).forward

        def looks(self: nn.Module, hidden: Tensor, **kwargs: Any) -> Any:
            return forward(self, hidden * (hidden.sum().item() != 0), **kwargs)

        monkeypatch.setattr(type(model.model.layers[2]), "forward", looks)
        with pytest.raises(RunFailedError) as caught, graphed(model, FakeCard()) as graphs:
            answer(model, prompt(), graphs.cache(2))
        assert "LlamaModel cannot be captured" in caught.value.problem
        assert caught.value.problem.endswith(
            "RuntimeError: CUDA error: operation not permitted when stream is capturing"
        )
        assert "--optimization sdpa or compile" in caught.value.remedy

    def test_a_cache_that_counts_in_python(self) -> None:
        """Layers with a sliding window count their positions in a number that no replay would move on."""
        model = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)).train(False)
        with graphed(model, FakeCard()) as graphs:
            for _ in ("at first", "and whenever it is tried again"):
                with pytest.raises(RunFailedError, match=r"layers\[0\]\.cumulative_length_int"):
                    answer(model, prompt(), graphs.cache(2))

    def test_a_prompt_that_the_model_makes_longer(self, model: Any) -> None:
        """Positions beyond the cache would be written out of bounds, which ends a CUDA process."""
        with pytest.raises(RunFailedError, match="holds 11 positions"), graphed(model, FakeCard(), 11) as graphs:
            answer(model, prompt(), graphs.cache(2))

    def test_calls_that_are_never_alike(self, model: Any) -> None:
        """Captures end where there would be one for every step."""
        with pytest.raises(RunFailedError, match="differ in more than their tensors"):
            self.captured_over_and_over(model, decode_graph.MOST + 3)

    @staticmethod
    def captured_over_and_over(model: Any, steps: int) -> None:
        """Give the decoder something else in every call."""
        graphs = DecodeGraphs(model, model.model, 2 * steps, FakeCard())
        made = graphs.make(type(model.model).forward.__get__(model.model))
        cache = graphs.cache(1)
        with torch.no_grad():
            made(None, input_ids=torch.ones(1, 2, dtype=torch.long), past_key_values=cache)
            for _ in range(steps):
                made(None, input_ids=torch.ones(1, 1, dtype=torch.long), past_key_values=cache, tag=object())

    def test_a_model_without_decoder_layers(self) -> None:
        """There is nothing to capture."""
        with pytest.raises(RunFailedError, match="no decoder layers"):
            decode_graph.decoder_of(nn.Linear(2, 2), ())


def test_the_decoder_is_the_module_that_holds_the_layers(model: Any) -> None:
    """Not the list of them, however many there are."""
    layers = find_layers(model)
    assert decode_graph.decoder_of(model, layers) is model.model
    assert decode_graph.decoder_of(model, [x for x in layers if x.name.endswith("layers.1")]) is model.model
    gemma = GemmaForCausalLM(GemmaConfig(**SMALL, head_dim=8))
    assert decode_graph.decoder_of(gemma, find_layers(gemma)) is gemma.model


def test_a_call_is_taken_apart_and_put_together() -> None:
    """Tensors in order; forms are equal where all else is, and keep what is not a tensor."""
    a, b, cache = torch.ones(2, 3), torch.zeros(4, dtype=torch.int64), object()
    call = ((a, None), {"masks": {"full": b, "none": None}, "use": True, "cache": cache, "list": [a, 2.0]})
    tensors, form = taken_apart(call)
    assert [id(t) for t in tensors] == [id(a), id(b), id(a)]
    new = [torch.zeros(2, 3), torch.ones(4, dtype=torch.int64), torch.zeros(2, 3)]
    again = put_together(call, iter(new))
    assert taken_apart(again) == (new, form)
    assert again[1]["cache"] is cache
    others = [
        ((a, None), {**call[1], "use": 1}),
        ((a.half(), None), call[1]),
        ((a, None), {**call[1], "cache": object()}),
    ]
    assert all(taken_apart(other)[1] != form for other in others)


def test_a_tensor_on_another_device_counts_by_its_contents() -> None:
    """A graph holds what stood in it at its capture, so other contents are another call."""
    forms = [taken_apart(torch.tensor(number), torch.device("cuda:0"))[1] for number in (1, 1, 2)]
    assert forms[0] == forms[1] != forms[2]
    assert len({taken_apart(torch.tensor(number), torch.device("cpu"))[1] for number in (1, 2)}) == 1


def test_what_is_remembered_is_told_by_place() -> None:
    """Contents of tensors may change; a number, or where a tensor lies, may not."""

    class Layer:
        def __init__(self) -> None:
            self.keys, self.count, self.owner = torch.zeros(3), 0, self

    class Cache:
        def __init__(self) -> None:
            self.layers, self.kind = [Layer(), Layer()], Layer

    cache = Cache()
    before = remembered(cache)
    cache.layers[1].keys += 1
    assert changed(before, remembered(cache)) is None
    cache.layers[1].count += 1
    assert changed(before, remembered(cache)) == "layers[1].count"
    cache.layers[1].count -= 1
    cache.layers[0].keys = torch.zeros(3)
    assert changed(before, remembered(cache)) == "layers[0].keys"
