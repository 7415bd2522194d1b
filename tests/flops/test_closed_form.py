"""The formulas that counts are held against: themselves against published and independently counted figures."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import closed_form
import pytest

CONFIG: dict[str, Any] = json.loads((files("layerprof.models") / "qwen2_5_vl_3b.json").read_text())


def square(pixels: int, images: int = 1) -> list[tuple[int, int, int]]:
    """Return the patch grids of square images."""
    return [(1, pixels // 14, pixels // 14)] * images


@pytest.mark.parametrize(
    ("rows", "pixels", "text", "expected"),
    [
        (1, 224, 100, 1_250_302_099_456),
        (3, 224, 70, 3_243_580_981_248),
        (2, 336, 70, 3_903_461_261_312),
        (1, 448, 70, 3_183_870_607_360),
    ],
)
def test_the_closed_form_gives_the_counted_prefill(rows: int, pixels: int, text: int, expected: int) -> None:
    """Figures that FlopCounterMode counted on the full-size model with eager attention."""
    prompt = text + (pixels // 28) ** 2
    assert closed_form.qwen2_5_vl(CONFIG, square(pixels, rows), rows, prompt).prefill == expected


def test_the_golden_numbers_at_448_pixels() -> None:
    """3160.91 GFLOP of prefill at 322 tokens, 6.267 for one decode token at KV length 323, and their parts."""
    form = closed_form.qwen2_5_vl(CONFIG, square(448), 1, 322, new_tokens=2)
    giga = {
        "prefill": form.prefill,
        "vision": form.vision,
        "patch_embed": form.patch_embed,
        "merger": form.merger,
        "windowed": form.vision_blocks[0],
        "full": form.vision_blocks[7],
        "layer": form.prefill_layers[0],
        "decode": form.decode,
        "decode layer": form.decode_layers[0],
        "head": form.lm_head,
    }
    assert {name: round(value / 1e9, 3) for name, value in giga.items()} == {
        "prefill": 3160.91,
        "vision": 1342.911,
        "patch_embed": 3.083,
        "merger": 18.79,
        "windowed": 40.653,
        "full": 45.686,
        "layer": 50.483,
        "decode": 6.267,
        "decode layer": 0.157,
        "head": 0.622,
    }


def test_the_closed_form_grows_with_the_answer() -> None:
    """From 1 to 128 new tokens at 224 pixels: 1.250 to 2.043 TFLOP."""
    totals = [closed_form.qwen2_5_vl(CONFIG, square(224), 1, 164, n).total for n in (1, 16, 32, 64, 100, 128)]
    assert [round(total / 1e12, 3) for total in totals] == [1.25, 1.344, 1.443, 1.643, 1.868, 2.043]


def test_windows_at_the_edges_are_smaller() -> None:
    """At 140 pixels, 5 merged patches a side: windows of 64, 16, 16 and 4 patches attend among themselves."""
    form = closed_form.qwen2_5_vl(CONFIG, square(140), 1, 1)
    linear = 39_372_800 * 100
    assert form.vision_blocks[0] == linear + 4 * 1280 * (64**2 + 16**2 + 16**2 + 4**2)
    assert form.vision_blocks[7] == linear + 4 * 1280 * 100**2


def test_a_decode_layer_by_the_constants_of_the_3b_model() -> None:
    """154,140,672 for the matrices of one position and 8,192 for each position of the cache, a row."""
    text = CONFIG["text_config"]
    assert closed_form.decoder_layer(text, 3, 1, 165) == 3 * (154_140_672 + 8_192 * 165)
    assert closed_form.head(text, 1) == 622_329_856


def test_latent_attention_by_hand() -> None:
    """Widths of primes, so that no product stands for another: each matrix, the scores and the values."""
    text = {
        "hidden_size": 11, "num_attention_heads": 3, "q_lora_rank": 7, "kv_lora_rank": 5, "qk_nope_head_dim": 13,
        "qk_rope_head_dim": 2, "v_head_dim": 17,
    }  # fmt: skip
    matrices = 11 * 7 + 7 * 3 * 15 + 11 * (5 + 2) + 5 * 3 * (13 + 17) + 3 * 17 * 11
    assert closed_form.latent_attention(text, 2, 4) == 2 * (2 * 4) * matrices + 2 * (2 * 3 * 4 * 4) * (15 + 17)


def test_nothing_of_the_product_is_called() -> None:
    """A formula that took the product's own would agree with any mistake in it."""
    source = Path(closed_form.__file__).read_text()
    assert "import layerprof" not in source
    assert "from layerprof" not in source
