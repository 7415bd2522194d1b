"""Small random models of other families with their real processors, as `Subject`s that can be asked about pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

from layerprof import demo
from layerprof.models.load import wrap
from layerprof.models.subject import Subject

HF: Any = transformers  # its configurations are typed as if none of their fields had a type of its own

TEXT: dict[str, Any] = {
    "vocab_size": 640,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 499,
    "bos_token_id": 499,
    "eos_token_id": 501,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}


def template(image: str, video: str = "") -> str:
    """Write a chat template of these marks."""
    return (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
        + image
        + "{% elif c['type'] == 'video' %}"
        + video
        + "{% else %}{{ c['text'] }}{% endif %}{% endfor %} ASSISTANT:{% endfor %}"
    )


def tokenizer(*special: str) -> Any:
    """Load the bundled tokenizer with further special tokens."""
    loaded = HF.AutoTokenizer.from_pretrained(demo.MODEL_FOLDER)
    loaded.add_special_tokens({"additional_special_tokens": list(special)})
    loaded.chat_template = None
    return loaded


def llava_onevision() -> Subject:
    """Tiles by the picture's shape, several pictures as they are, and videos pooled frame by frame."""
    words = tokenizer("<image>", "<video>")
    pinpoints = [[56, 56], [56, 112], [112, 56], [112, 112]]
    processor = HF.LlavaOnevisionProcessor(
        image_processor=HF.LlavaOnevisionImageProcessor(
            size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints
        ),
        video_processor=HF.LlavaOnevisionVideoProcessor(size={"height": 56, "width": 56}),
        tokenizer=words,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>", "<video>"),
    )
    config = HF.LlavaOnevisionConfig(
        vision_config=HF.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=HF.Qwen2Config(**{name: value for name, value in TEXT.items() if name != "head_dim"}),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return wrap(HF.LlavaOnevisionForConditionalGeneration(config), processor, name="llava-onevision")


def internvl() -> Subject:
    """Tiles of one size, four patches a token; a video's frames are images."""
    words = tokenizer("<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    words.start_image_token, words.end_image_token, words.context_image_token = "<img>", "</img>", "<IMG_CONTEXT>"
    words.video_token = "<video>"
    for name in ("start_image", "end_image", "context_image"):
        setattr(words, f"{name}_token_id", words.convert_tokens_to_ids(getattr(words, f"{name}_token")))
    processor = HF.InternVLProcessor(
        image_processor=HF.GotOcr2ImageProcessor(
            size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=words,
        video_processor=HF.InternVLVideoProcessor(size={"height": 56, "width": 56}),
        image_seq_length=4,
        chat_template=template("<IMG_CONTEXT>\n", "<video>\n"),
    )
    config = HF.InternVLConfig(
        vision_config=HF.InternVLVisionConfig(**{**VISION, "image_size": [56, 56], "patch_size": [14, 14]}),
        text_config=HF.Qwen2Config(**{name: value for name, value in TEXT.items() if name != "head_dim"}),
        image_token_id=words.context_image_token_id,
        downsample_ratio=0.5,
    )
    return wrap(HF.InternVLForConditionalGeneration(config), processor, name="internvl")


def gemma3() -> Subject:
    """One square size, image tokens that see each other."""
    words = tokenizer("<image_soft_token>", "<start_of_image>", "<end_of_image>")
    words.image_token, words.boi_token, words.eoi_token = "<image_soft_token>", "<start_of_image>", "<end_of_image>"
    for name in ("image", "boi", "eoi"):
        setattr(words, f"{name}_token_id", words.convert_tokens_to_ids(getattr(words, f"{name}_token")))
    processor = HF.Gemma3Processor(
        image_processor=HF.Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=words,
        image_seq_length=4,
        chat_template=template("<start_of_image>"),
    )
    text = HF.Gemma3TextConfig(**TEXT, sliding_window=64, layer_types=["sliding_attention", "full_attention"])
    config = HF.Gemma3Config(
        vision_config=HF.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=text,
        image_token_id=words.image_token_id,
        mm_tokens_per_image=4,
    )
    return wrap(HF.Gemma3ForConditionalGeneration(config), processor, name="gemma3")


def idefics3() -> Subject:
    """Tiles told by row and column tokens, nested by sample."""
    processor = HF.Idefics3Processor(
        image_processor=HF.Idefics3ImageProcessor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56}),
        tokenizer=tokenizer("<image>"),
        image_seq_len=4,
        chat_template=template("<image>"),
    )
    config = HF.Idefics3Config(
        vision_config=VISION,
        text_config=HF.LlamaConfig(**TEXT),
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )
    return wrap(HF.Idefics3ForConditionalGeneration(config), processor, name="idefics3")


def llava_next() -> Subject:
    """Tiles by the picture's shape beside an overview."""
    words = tokenizer("<image>")
    pinpoints = [[56, 112], [112, 56], [112, 112]]
    processor = HF.LlavaNextProcessor(
        image_processor=HF.LlavaNextImageProcessor(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints
        ),
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
    config = HF.LlavaNextConfig(
        vision_config=HF.CLIPVisionConfig(**VISION),
        text_config=HF.LlamaConfig(**TEXT),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
    )
    return wrap(HF.LlavaNextForConditionalGeneration(config), processor, name="llava-next")


def qwen3_vl() -> Subject:
    """Patches of 16 px, deepstack; a video's frames are told by their time."""
    marks = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    words = tokenizer(*marks)
    image, video, start, end = (words.convert_tokens_to_ids(mark) for mark in marks)
    processor = HF.Qwen3VLProcessor(
        image_processor=HF.Qwen2VLImageProcessor(
            patch_size=16, merge_size=2, size={"shortest_edge": 4096, "longest_edge": 16777216}
        ),
        tokenizer=words,
        video_processor=HF.Qwen3VLVideoProcessor(size={"shortest_edge": 4096, "longest_edge": 25165824}),
        chat_template=template(
            "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
        ),
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    config = HF.Qwen3VLConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    return wrap(HF.Qwen3VLForConditionalGeneration(config), processor, name="qwen3-vl")


def blip2() -> Subject:
    """Make a processor that writes one image's tokens itself, and a model that wants pixels."""
    words = tokenizer()
    processor = HF.Blip2Processor(
        image_processor=HF.BlipImageProcessor(size={"height": 56, "width": 56}), tokenizer=words, num_query_tokens=3
    )
    text = HF.OPTConfig(
        vocab_size=640, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4
    )
    config = HF.Blip2Config(
        vision_config=VISION,
        qformer_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "encoder_hidden_size": 32},
        text_config=text.to_dict(),
        num_query_tokens=3,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    return wrap(HF.Blip2ForConditionalGeneration(config), processor, name="blip2")


FAMILIES: dict[str, Callable[[], Subject]] = {
    make.__name__: make for make in (llava_next, llava_onevision, internvl, gemma3, idefics3, qwen3_vl, blip2)
}


def build(name: str) -> Subject:
    """Build a family with seeded random weights."""
    torch.manual_seed(0)
    return FAMILIES[name]()
