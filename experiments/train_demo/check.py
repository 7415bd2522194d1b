"""Check that the fast training forward equals the library's on a few samples."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import data
import fast
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from layerprof.demo import MODEL_FOLDER, tasks
from layerprof.settings import DATASETS


def main() -> None:
    """Print the largest differences, for each task at each size."""
    processor = AutoProcessor.from_pretrained(MODEL_FOLDER)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(MODEL_FOLDER, dtype=torch.float32).eval()
    mean, std = (
        torch.tensor(value) for value in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    encode = data.Encoder(processor.tokenizer)
    for side in (224, 336, 448):
        for dataset in DATASETS:
            samples = [tasks.sample(dataset, index, "training") for index in range(3)]
            images = [data.resized(data.render(sample.scene), side) for sample in samples]
            texts = encode(dataset, samples, side // 28)
            written = [
                processor.tokenizer.decode([i for i in ids if i not in (encode.image, encode.pad)])
                for ids in texts.ids.tolist()
            ]
            print(repr(written[0]), texts.option.max(1).values.tolist())
            full = [text.replace("<|vision_start|>", "<|vision_start|><|image_pad|>") for text in written]
            inputs = processor(
                text=full, images=[data.Image.fromarray(i) for i in images], padding=True, return_tensors="pt"
            )
            with torch.no_grad():
                expected = model(**inputs).logits
                patches = fast.patches(torch.stack([torch.from_numpy(i.copy()) for i in images]), mean, std)
                pixels = patches.view(-1, 3, 1, 196).expand(-1, -1, 2, -1).reshape(-1, 1176)
                print(side, dataset, "pixels", float((pixels - inputs["pixel_values"]).abs().max()))
                seen = fast.vision(model.model.visual, patches, side)
                x = model.model.language_model.embed_tokens(texts.ids)
                x[:, texts.prefix : texts.prefix + seen.shape[1]] = seen
                positions = fast.text_positions(texts.prefix, side // 28, x.shape[1])
                logits = model.lm_head(fast.language(model.model.language_model, x, positions)[0])
                for row in range(3):
                    length = int(inputs["attention_mask"][row].sum())
                    print("   logits", float((logits[row, :length] - expected[row, -length:]).abs().max()))


if __name__ == "__main__":
    main()
