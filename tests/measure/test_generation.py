"""Generation: greedy whatever the checkpoint says, the same in any batch, with a time for every token."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import checkpoint_folder, samples, subject

from layerprof.data import batching, datasets
from layerprof.data.batching import Batch
from layerprof.measure import generation
from layerprof.measure.generation import Recorder, generate
from layerprof.models.load import load_model
from layerprof.models.source import resolve
from layerprof.models.subject import Subject

QUESTIONS = ["hi?", "what is written on the sign?", "a?", "which of these words is the longest one here?", "and now?"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Load a random Qwen2.5-VL in fp32."""
    return subject(checkpoint_folder(tmp_path_factory.mktemp("tiny") / "model"))


def batches(tiny: Subject, size: int, questions: list[str] = QUESTIONS) -> tuple[Batch, ...]:
    """Batch the questions by `size`, their images at 56 px."""
    return tuple(batching.batches(tiny, samples(questions), batch_size=size, image_size=56))


def by_hand(tiny: Subject, batch: Batch, tokens: int) -> list[list[int]]:
    """Greedy decoding without cache or generate(): the whole sequence anew for every token."""
    fed = dict(batch.tensors)
    made: list[torch.Tensor] = []
    for _ in range(tokens):
        generation.forget(tiny.model)
        with torch.no_grad():
            logits = tiny.model(**fed, use_cache=False).logits[:, -1]
        made.append(logits.argmax(-1, keepdim=True))
        ones = torch.ones_like(made[-1])
        fed["input_ids"] = torch.cat([fed["input_ids"], made[-1]], 1)
        fed["attention_mask"] = torch.cat([fed["attention_mask"], ones], 1)
        fed["mm_token_type_ids"] = torch.cat([fed["mm_token_type_ids"], 0 * ones], 1)
    generation.forget(tiny.model)
    return torch.cat(made, 1).tolist()


# --- what is answered -------------------------------------------------------------------------------------------


def test_answers_are_the_most_likely_tokens_one_by_one(tiny: Subject) -> None:
    """Cache, left padding and image positions give what recomputing everything gives."""
    (batch,) = batches(tiny, 5)
    answered = generate(tiny, batch, max_new_tokens=6, fixed=True)
    free = by_hand(tiny, batch, 6)
    ends = set(tiny.eos_ids)
    compared = [row for row, tokens in enumerate(free) if not ends & set(tokens)]
    assert compared
    for row in compared:
        assert list(answered.answer_tokens[row]) == free[row]


@pytest.mark.parametrize("size", [2, 5])
def test_answers_do_not_depend_on_the_batch(tiny: Subject, size: int) -> None:
    """Rows of unequal length, together or alone: identical tokens in fp32."""
    alone = [generate(tiny, batch, max_new_tokens=8).answer_tokens[0] for batch in batches(tiny, 1)]
    together = [row for batch in batches(tiny, size) for row in generate(tiny, batch, max_new_tokens=8).answer_tokens]
    assert together == alone


def test_padding_on_the_right_would_change_the_answers(tiny: Subject) -> None:
    """Why it is checked: the same rows padded on the other side are answered otherwise."""
    (batch,) = batches(tiny, 5)
    rows = {name: batch.tensors[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    turned = {
        name: torch.stack([row.roll(-pads) for row, pads in zip(tensor, batch.pad_tokens, strict=True)])
        for name, tensor in rows.items()
    }
    right = dataclasses.replace(batch, tensors=batch.tensors | turned)
    spoilt = generate(tiny, right, max_new_tokens=8).answer_tokens
    sound = generate(tiny, batch, max_new_tokens=8).answer_tokens
    longest = batch.pad_tokens.index(0)
    assert spoilt[longest] == sound[longest]
    assert spoilt != sound


def test_a_checkpoints_own_settings_do_not_matter(tiny: Subject) -> None:
    """Sampling, penalties, beams and forced tokens of a published generation config are all overridden, and kept."""
    (batch,) = batches(tiny, 5)
    plain = generate(tiny, batch, max_new_tokens=6)
    own = tiny.model.generation_config
    kept = own.to_dict()
    own.update(do_sample=True, temperature=5.0, top_k=3, top_p=0.5, repetition_penalty=3.0, num_beams=3)
    own.update(no_repeat_ngram_size=1, max_length=7, suppress_tokens=[row[0] for row in plain.answer_tokens])
    try:
        again = generate(tiny, batch, max_new_tokens=6)
        assert tiny.model.generation_config is own
        assert own.repetition_penalty == 3.0
    finally:
        tiny.model.generation_config = type(own).from_dict(kept)
    assert again.answer_tokens == plain.answer_tokens


def test_generate_compiles_nothing_of_its_own_on_a_gpu(tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a static cache on a GPU, transformers would compile the whole forward around the hooks; layers are ours."""
    from types import SimpleNamespace

    from transformers.cache_utils import StaticCache

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "0")  # transformers sets it where it compiles
    compiled = dataclasses.replace(tiny, optimization="compile")
    config = generation.greedy_config(compiled, 4)
    assert config.cache_implementation == "static"
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda:0"), config=tiny.model.config)
    cache = StaticCache(config=tiny.model.config.get_text_config(), max_cache_len=16)
    asked = {"past_key_values": cache}
    assert not type(tiny.model)._valid_auto_compile_criteria(on_gpu, asked, config)
    config.disable_compile = False
    assert type(tiny.model)._valid_auto_compile_criteria(on_gpu, asked, config)


def test_an_answer_ends_before_its_end_mark(tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a row's third token is an end mark: two tokens are its answer, three were generated, nothing was cut off."""
    batch = batches(tiny, 1)[1]
    free = generate(tiny, batch, max_new_tokens=8).answer_tokens[0]
    place = next(at for at, token in enumerate(free) if at and token not in free[:at])
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", [free[place]])
    ended = generate(tiny, batch, max_new_tokens=8)
    assert ended.answer_tokens == (free[:place],)
    assert ended.new_tokens == (place + 1,)
    assert ended.truncated == (False,)


def test_rows_that_end_early_are_not_charged_for_padding(tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a batch the others write on; the ended row counts its own tokens only."""
    (batch,) = batches(tiny, 5)
    free = generate(tiny, batch, max_new_tokens=8).answer_tokens
    first = free[0][0]
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", [first])
    ended = generate(tiny, batch, max_new_tokens=8)
    for row, tokens in enumerate(free):
        if first in tokens:
            assert ended.new_tokens[row] == tokens.index(first) + 1
            assert ended.answer_tokens[row] == tokens[: tokens.index(first)]
        else:
            assert ended.truncated[row]


@pytest.mark.parametrize("tokens", [1, 7])
def test_fixed_answers_have_exactly_the_tokens_asked_for(
    tiny: Subject, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """End marks are held back, so that every row does the same work."""
    (batch,) = batches(tiny, 5)
    first = generate(tiny, batch, max_new_tokens=1).answer_tokens[0][0]
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", [first])
    fixed = generate(tiny, batch, max_new_tokens=tokens, fixed=True)
    assert fixed.new_tokens == (tokens,) * 5
    assert all(first not in row for row in fixed.answer_tokens)


def test_the_demo_answers_alike_at_batch_1_and_16() -> None:
    """The bundled model in fp32 on its own samples: identical tokens."""
    demo = load_model(resolve("demo", device="cpu", dtype="fp32"))
    data = datasets.load("scienceqa", count=16)
    alone, together = (
        [
            row
            for batch in batching.batches(demo, data, batch_size=size, image_size=112)
            for row in generate(demo, batch, max_new_tokens=6).answer_tokens
        ]
        for size in (1, 16)
    )
    assert alone == together


# --- times ------------------------------------------------------------------------------------------------------


def test_every_token_has_a_time(tiny: Subject) -> None:
    """One to the first token, one for each further one, together no longer than the call."""
    (batch,) = batches(tiny, 5)
    start = time.perf_counter()
    answered = generate(tiny, batch, max_new_tokens=6, fixed=True)
    whole = time.perf_counter() - start
    assert answered.first_token_s is not None
    assert len(answered.step_times_s) == 5
    assert min(answered.first_token_s, *answered.step_times_s) > 0
    assert answered.first_token_s + sum(answered.step_times_s) <= whole


def test_the_first_token_waits_for_the_prompt(tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that each forward pass moves by its positions, the prompt's share is in the first time alone."""
    (batch,) = batches(tiny, 5)
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    embed = tiny.model.model.language_model.layers[0]

    def pass_time(_module: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        now[0] += hidden.shape[1]

    handle = embed.register_forward_pre_hook(pass_time, with_kwargs=True)
    try:
        answered = generate(tiny, batch, max_new_tokens=4, fixed=True)
    finally:
        handle.remove()
    assert answered.first_token_s == batch.tensors["input_ids"].shape[1]
    assert answered.step_times_s == (1.0, 1.0, 1.0)


# --- faults -----------------------------------------------------------------------------------------------------


def test_bad_logits_are_noticed_where_asked(tiny: Subject) -> None:
    """NaN and infinity are; the -inf that holds back end marks is none; without the probe nothing is said."""
    (batch,) = batches(tiny, 5)
    assert generate(tiny, batch, max_new_tokens=3).bad_logits is None
    assert generate(tiny, batch, max_new_tokens=3, fixed=True, recorder=Recorder(probe=True)).bad_logits is False
    for value in (float("nan"), float("inf")):

        def spoil(_module: Any, _args: Any, output: torch.Tensor, value: float = value) -> torch.Tensor:
            output[2, -1, 7] = value
            return output

        handle = tiny.model.lm_head.register_forward_hook(spoil)
        try:
            assert generate(tiny, batch, max_new_tokens=3, recorder=Recorder(probe=True)).bad_logits is True
        finally:
            handle.remove()


def test_an_interrupt_leaves_the_model_as_it_was(tiny: Subject) -> None:
    """Positions are forgotten, the generation config is back, and the next answers are right."""
    (batch,) = batches(tiny, 5)
    expected = generate(tiny, batch, max_new_tokens=5).answer_tokens
    own = tiny.model.generation_config

    def interrupt(_module: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.shape[1] == 1:
            raise KeyboardInterrupt

    handle = tiny.model.model.language_model.layers[1].register_forward_pre_hook(interrupt, with_kwargs=True)
    try:
        with pytest.raises(KeyboardInterrupt):
            generate(tiny, batch, max_new_tokens=5)
    finally:
        handle.remove()
    assert tiny.model.model.rope_deltas is None
    assert tiny.model.generation_config is own
    assert generate(tiny, batch, max_new_tokens=5).answer_tokens == expected


def test_positions_of_a_former_call_do_not_leak(tiny: Subject) -> None:
    """A call with other lengths before it changes nothing."""
    first, second, *_ = batches(tiny, 1)
    expected = generate(tiny, second, max_new_tokens=5).answer_tokens
    with torch.no_grad():
        tiny.model(**first.tensors)
    assert tiny.model.model.rope_deltas is not None
    assert generate(tiny, second, max_new_tokens=5).answer_tokens == expected


def test_half_precision_answers_on_a_cpu(tmp_path: Path) -> None:
    """fp16 and bf16 run there too, slowly, and without NaN."""
    folder = checkpoint_folder(tmp_path / "model")
    for dtype in ("fp16", "bf16"):
        small = subject(folder, dtype=dtype)
        (batch,) = batches(small, 2, QUESTIONS[:2])
        answered = generate(small, batch, max_new_tokens=3, fixed=True, recorder=Recorder(probe=True))
        assert answered.new_tokens == (3, 3)
        assert answered.bad_logits is False
