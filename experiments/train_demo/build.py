"""Build the untrained bundled model: tokenizer, processor, configuration and random weights, in Hugging Face format.

python experiments/train_demo/build.py FOLDER
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from layerprof.demo import tasks
from layerprof.demo.drawing import BACKGROUND_COLORS, OBJECT_COLORS, SHAPES

VOCABULARY = 576
"""Tokens in all; a multiple of 64, and room enough for each word of the prompts to be one token."""

# As in Qwen2.5's tokenizer, in its order.
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
ADDED = ("<tool_call>", "</tool_call>")
PRETOKENIZER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def corpus() -> list[str]:
    """Repeat the fixed text of the prompts, often enough that the trainer merges each of its words into one token."""
    names = [*OBJECT_COLORS, *BACKGROUND_COLORS, *SHAPES]
    once = [
        "system\nYou are a helpful assistant.\nuser\n\nassistant\n",
        *(
            f"{question.capitalize()}\nAnswer the question using a single word or phrase."
            for question in tasks.TEXT_QUESTIONS
        ),
        *(f"Context: {hint}\nWhat color is the circle?\nA. red\nB. blue" for hint in tasks.HINTS),
        "What shape is the red object?\nWhich color is in the picture?",
        "\nAnswer with the option's letter from the given choices directly.",
        "Provide a one-sentence caption for the provided image.",
        "a red circle and a blue square on a gray background",
    ]
    return once * 50 + [f"a {name} {name}" for name in names] * 400


def tokenizer() -> Qwen2Tokenizer:
    """Byte-level BPE with Qwen's special tokens. No uppercase words are learnt, so these are read letter by letter."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZER), behavior="isolated", invert=False)
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    added = len(SPECIAL) + len(ADDED)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - added,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(corpus(), trainer)
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    return core


def configuration(vocabulary: Tokenizer) -> Qwen2_5_VLConfig:
    """Describe the true architecture at a small size."""
    ids = {token: vocabulary.token_to_id(token) for token in SPECIAL}
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
            "out_hidden_size": 192,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def processor(core: Tokenizer) -> Qwen2_5_VLProcessor:
    """Left padding: with right padding a decoder continues from the padding in all but the longest row of a batch."""
    text = Qwen2Tokenizer(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        bos_token=None,
        unk_token=None,
        padding_side="left",
        model_max_length=4096,
        chat_template=CHAT_TEMPLATE,
    )
    sizes = {"shortest_edge": 3136, "longest_edge": 12845056}
    shared = {
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=sizes, **shared),
        video_processor=Qwen2VLVideoProcessor(size=sizes, **shared),
        tokenizer=text,
        chat_template=CHAT_TEMPLATE,
    )


def model(config: Qwen2_5_VLConfig) -> Qwen2_5_VLForConditionalGeneration:
    """Draw random weights.

    Embeddings have unit length, so that through the tied head a matching token stands out at once.
    """
    torch.manual_seed(0)
    built = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        embedding = built.model.language_model.embed_tokens.weight
        torch.nn.init.normal_(embedding, std=embedding.shape[1] ** -0.5)
        for name, weight in built.named_parameters():
            if weight.ndim >= 2 and weight is not embedding:
                fan_in = weight[0].numel()
                torch.nn.init.normal_(weight, std=0.7 * fan_in**-0.5)
                if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
                    weight.mul_(0.4)
    built.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=config.text_config.bos_token_id,
        pad_token_id=config.text_config.pad_token_id,
        eos_token_id=[config.text_config.eos_token_id, config.text_config.pad_token_id],
    )
    return built


def build(folder: Path) -> None:
    """Write everything a `from_pretrained` needs."""
    core = tokenizer()
    processor(core).save_pretrained(folder)
    save(model(configuration(core)), folder)


def save(built: Qwen2_5_VLForConditionalGeneration, folder: Path) -> None:
    """Write the weights in fp16 and leave the given model as it is."""
    copy.deepcopy(built).half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
