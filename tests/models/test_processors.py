"""Other families: any processor's own rules, through the same functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from small_models import CONFIG, picture, samples, subject

from layerprof import demo
from layerprof.data import batching
from layerprof.errors import RequestError
from layerprof.measure import generation
from layerprof.models.load import wrap
from layerprof.models.subject import Subject

HF: Any = transformers  # its configurations are typed as if none of their fields had a type of its own

TEMPLATE = (
    "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %} ASSISTANT:{% endfor %}"
)
TEXT = {"vocab_size": 640, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2} | {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 499,
    "bos_token_id": 499,
    "eos_token_id": 501,
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2} | {
    "image_size": 56,
    "patch_size": 14,
}


def llava(tokenizer: Any) -> Subject:
    """Make a LLaVA of 4 x 4 patches, whose processor crops to 56 px whatever it gets."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = HF.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = HF.LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config = HF.LlavaConfig(
        vision_config=HF.CLIPVisionConfig(**VISION),
        text_config=HF.LlamaConfig(**TEXT),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return wrap(HF.LlavaForConditionalGeneration(config), processor, name="llava")


def llava_next(tokenizer: Any) -> Subject:
    """Make a LLaVA-NeXT, which cuts an image into tiles by the image's own size."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pinpoints = [[56, 112], [112, 56], [112, 112], [168, 56]]
    images = HF.LlavaNextImageProcessor(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints
    )
    processor = HF.LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config = HF.LlavaNextConfig(
        vision_config=HF.CLIPVisionConfig(**VISION),
        text_config=HF.LlamaConfig(**TEXT),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
    )
    return wrap(HF.LlavaNextForConditionalGeneration(config), processor, name="llava-next")


def idefics3(tokenizer: Any) -> Subject:
    """Make an Idefics3, which wants its images nested by sample and tells tiles by row and column tokens."""
    images = HF.Idefics3ImageProcessor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    processor = HF.Idefics3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_len=4, chat_template=TEMPLATE
    )
    config = HF.Idefics3Config(
        vision_config=VISION,
        text_config=HF.LlamaConfig(**TEXT),
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )
    return wrap(HF.Idefics3ForConditionalGeneration(config), processor, name="idefics3")


@pytest.mark.parametrize("make", [llava, llava_next, idefics3])
def test_other_families_answer_through_the_same_functions(make: Any) -> None:
    """Their own processors, image tokens counted in the prompt, left padding, answers of the asked length."""
    other = make(HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER))
    assert other.cell_px is None
    (batch,) = batching.batches(other, samples(["hi?", "what is written on this sign?"]), batch_size=2, image_size=100)
    assert all(tokens > 0 for tokens in batch.image_tokens)
    assert batch.tensors["attention_mask"][:, -1].tolist() == [1, 1]
    answered = generation.generate(other, batch, max_new_tokens=4, fixed=True)
    assert answered.new_tokens == (4, 4)


def test_a_text_model_is_asked_without_images(tmp_path: Path) -> None:
    """The same samples, their pictures left out."""
    text = {"model_type": "qwen2", **{k: v for k, v in CONFIG["text_config"].items() if k != "model_type"}}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    (tmp_path / "config.json").write_text(json.dumps(text))
    small = subject(tmp_path, weights="random")
    (batch,) = batching.batches(small, samples(["hi?", "what is this?"]), batch_size=2)
    assert "pixel_values" not in batch.tensors
    assert batch.image_tokens == (0, 0)
    assert batch.tensors["attention_mask"][:, -1].tolist() == [1, 1]


def test_a_template_that_knows_of_no_images_gets_the_image_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some checkpoints carry their text model's template; the image then stands before the question."""
    other = llava(HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER))
    words = (
        "{% for m in messages %}{{ m['content'] if m['content'] is string else m['content'][-1]['text'] }}{% endfor %}"
    )
    monkeypatch.setattr(other.processor, "chat_template", words)
    (batch,) = batching.batches(other, samples(["hi?"]))
    assert batch.image_tokens == (16,)


@pytest.mark.parametrize("broken", ["template", "processor"])
def test_a_family_that_cannot_be_asked_is_told(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """A template or processor that raises ends in a message that names LayerProfiler."""
    other = llava(HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER))
    if broken == "template":
        monkeypatch.setattr(other.processor, "chat_template", "{{ raise_exception('system prompt needed') }}")
    else:
        monkeypatch.setattr(other.processor, "patch_size", None)
    with pytest.raises(RequestError) as caught:
        list(batching.batches(other, samples(["hi?"])))
    assert "LayerProfiler" in caught.value.remedy


def blip2(tokenizer: Any) -> Subject:
    """Make a BLIP-2, whose processor writes the image's tokens itself and has no template."""
    processor = HF.Blip2Processor(
        image_processor=HF.BlipImageProcessor(size={"height": 56, "width": 56}), tokenizer=tokenizer, num_query_tokens=3
    )
    text = HF.OPTConfig(
        vocab_size=640, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4
    )
    config = HF.Blip2Config(
        vision_config=VISION,
        qformer_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "encoder_hidden_size": 32},
        text_config=text.to_dict(),
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return wrap(HF.Blip2ForConditionalGeneration(config), processor, name="blip2")


def florence2(tokenizer: Any) -> Subject:
    """Make a Florence-2: an encoder-decoder whose answer begins with a forced token."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.image_token, tokenizer.image_token_id = "<image>", tokenizer.convert_tokens_to_ids("<image>")
    tokenizer.bos_token = "<|endoftext|>"
    images = HF.CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    images.image_seq_length = 17
    vision = {"embed_dim": [8, 16], "num_heads": [2, 2], "num_groups": [2, 2], "depths": [1, 1]} | {
        "projection_dim": 32, "window_size": 4, "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
    }  # fmt: skip
    text = {"model_type": "bart", "vocab_size": 640, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1} | {
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "eos_token_id": 501, "decoder_start_token_id": 501,
    }  # fmt: skip
    config = HF.Florence2Config(vision_config=vision, text_config=text, image_token_id=tokenizer.image_token_id)
    processor = HF.Florence2Processor(image_processor=images, tokenizer=tokenizer)
    model = HF.Florence2ForConditionalGeneration(config)
    model.generation_config.forced_bos_token_id = 499  # as the published checkpoints have it
    return wrap(model, processor, name="florence2")


@pytest.mark.parametrize(("make", "tokens"), [(blip2, 3), (florence2, 17)])
@pytest.mark.parametrize("template", [None, "{{ messages[0]['content'][-1]['text'] }}"])
def test_a_processor_that_writes_the_image_s_tokens_gets_none_from_us(make: Any, tokens: int, template: Any) -> None:
    """With one more than the image has features, the model would refuse the prompt."""
    tokenizer = HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER)
    tokenizer.chat_template = template
    other = make(tokenizer)
    (batch,) = batching.batches(other, samples(["hi?", "what is this?"]), batch_size=2)
    assert batch.image_tokens == (tokens, tokens)
    assert generation.generate(other, batch, max_new_tokens=4, fixed=True).new_tokens == (4, 4)


def test_an_encoder_decoder_starts_as_its_generation_config_says() -> None:
    """Its answer is all that it wrote after the start token, the forced first token included."""
    tokenizer = HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER)
    tokenizer.chat_template = None
    other = florence2(tokenizer)
    (batch,) = batching.batches(other, samples(["hi?"]))
    answered = generation.generate(other, batch, max_new_tokens=3, fixed=True)
    assert answered.answer_tokens[0][0] == 499
    assert len(answered.answer_tokens[0]) == 3


def test_a_model_that_gives_only_a_part_of_the_prompt_back_loses_no_token() -> None:
    """BLIP drops the prompt's last token before it writes."""
    tokenizer = HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER)
    tokenizer.chat_template = None
    text = {"vocab_size": 640, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1} | {
        "num_attention_heads": 4, "encoder_hidden_size": 32, "bos_token_id": 499, "sep_token_id": 501,
    }  # fmt: skip
    images = HF.BlipImageProcessor(size={"height": 56, "width": 56})
    blip = wrap(
        HF.BlipForConditionalGeneration(HF.BlipConfig(vision_config=VISION, text_config=text)),
        HF.BlipProcessor(image_processor=images, tokenizer=tokenizer),
    )
    (batch,) = batching.batches(blip, samples(["hi?"]))
    assert not batch.prompts[0].startswith("\n")
    assert generation.generate(blip, batch, max_new_tokens=3, fixed=True).new_tokens == (3,)


def test_a_processor_that_draws_the_question_is_refused() -> None:
    """Pix2Struct makes patches of the question and no token ids, which is one message, no KeyError."""
    tokenizer = HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER)
    images = HF.Pix2StructImageProcessor(max_patches=16, patch_size={"height": 2, "width": 2})
    images.is_vqa = False
    other = wrap(llava(tokenizer).model, HF.Pix2StructProcessor(image_processor=images, tokenizer=tokenizer))
    with pytest.raises(RequestError, match="no input_ids") as caught:
        list(batching.batches(other, samples(["hi?"])))
    assert "LayerProfiler" in caught.value.remedy


class Wrapped:
    """A processor, or an image processor, with ways of its own; everything else is the wrapped one's."""

    def __init__(self, inner: Any, call: Any) -> None:
        self._inner, self._call = inner, call
        self.image_processor = getattr(inner, "image_processor", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the test says."""
        return self._call(self._inner, *args, **kwargs)


def test_images_are_given_one_by_one_to_a_processor_that_wants_no_lists() -> None:
    """GOT-OCR refuses images nested by sample."""
    other = llava(HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER))

    def call(inner: Any, *, images: Any, **more: Any) -> Any:
        if isinstance(images[0], list):
            raise ValueError("Nested images are only supported with `multi_page` set to `True`.")
        return inner(images=images, **more)

    (batch,) = batching.batches(Subject(other.model, Wrapped(other.processor, call)), samples(["a", "b"]), batch_size=2)
    assert batch.image_tokens == (16, 16)


def test_an_image_processor_that_gives_pixels_alone_is_understood() -> None:
    """Idefics' returns one tensor, no mapping; its size does not follow the image's, which is then left alone."""
    other = llava(HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER))
    bare = Wrapped(other.processor.image_processor, lambda inner, *args, **more: inner(*args, **more)["pixel_values"])
    given: list[tuple[int, int]] = []

    def call(inner: Any, *, images: Any, **asked: Any) -> Any:
        given.extend(image.size for (image,) in images)
        return inner(images=images, **asked)

    processor = Wrapped(other.processor, call)
    processor.image_processor = bare
    (batch,) = batching.batches(Subject(other.model, processor), samples(["a"]), image_size=100)
    assert given == [picture().size]
    assert batch.image_tokens == (16,)


def test_kinds_of_tokens_are_asked_for_where_the_model_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some processors tell image tokens from text only when asked (Cosmos 3), and their models fail without."""
    other = llava(HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER))

    def forward(mm_token_type_ids: Any = None) -> None:
        """Take what M-RoPE needs."""

    def call(inner: Any, *, return_mm_token_type_ids: bool = False, **more: Any) -> Any:
        features = inner(**more)
        if return_mm_token_type_ids:
            features["mm_token_type_ids"] = (features["input_ids"] == other.image_token_id).int()
        return features

    monkeypatch.setattr(other.model, "forward", forward)
    (batch,) = batching.batches(Subject(other.model, Wrapped(other.processor, call)), samples(["hi?"]))
    assert int(batch.tensors["mm_token_type_ids"].sum()) == 16


def test_a_folder_of_a_model_without_a_vision_config_is_asked_with_images(tmp_path: Path) -> None:
    """Chameleon's configuration has no part named for vision; its processor is loaded all the same."""
    tokenizer = HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    words = {f"IMGIMG{chr(65 + i // 10)}{chr(65 + i % 10)}Z": i for i in range(16)}
    marks = {"<image>": tokenizer.convert_tokens_to_ids("<image>")}
    autoencoder = {"resolution": 32, "base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1} | {
        "embed_dim": 8, "num_embeddings": 16,
    }  # fmt: skip
    config = HF.ChameleonConfig(vq_config=autoencoder, vocabulary_map=words | marks, **TEXT)
    images = HF.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = HF.ChameleonProcessor(image_processor=images, tokenizer=tokenizer, image_seq_length=256)
    HF.ChameleonForConditionalGeneration(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    small = subject(tmp_path)
    (batch,) = batching.batches(small, samples(["hi?", "what?"]), batch_size=2)
    assert batch.tensors["pixel_values"].shape == (2, 3, 32, 32)
    assert generation.generate(small, batch, max_new_tokens=2, fixed=True).new_tokens == (2, 2)
