"""Score a bundled-model folder on the held-out rows, through the library alone: processor, left padding, generate.

python experiments/train_demo/evaluate.py [FOLDER] --sides 224 448 --count 300
"""

from __future__ import annotations

import argparse
import string
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import data
import jiwer
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from layerprof.data import datasets
from layerprof.demo import EVALUATION_ROWS, MODEL_FOLDER, tasks
from layerprof.settings import DATASETS


def answers(model: Any, processor: Any, dataset: str, samples: list[tasks.DrawnSample], side: int) -> list[str]:
    """Answer one batch, greedily."""
    texts = []
    for sample in samples:
        content = [{"type": "image"}, {"type": "text", "text": data.prompt(dataset, sample.fields)}]
        message = {"role": "user", "content": content}
        texts.append(processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False))
    images = [sample.row()["image"].resize((side, side), Image.Resampling.BICUBIC) for sample in samples]
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt").to(model.device)
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=datasets.SPECS[dataset].max_new_tokens, do_sample=False)
    found: list[str] = processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


def normal(text: str) -> str:
    """Lower-case, without punctuation, single spaces."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


def edits(references: list[str], hypothesis: str) -> tuple[int, int]:
    """Count (word edits, words) against the reference that fits best."""
    counts = []
    for reference in references:
        out = jiwer.process_words(normal(reference), normal(hypothesis))
        counts.append((out.substitutions + out.deletions + out.insertions, len(normal(reference).split())))
    return min(counts, key=lambda count: (count[0] / count[1], -count[1]))


def references(dataset: str, fields: dict[str, Any]) -> list[str]:
    """Return every answer that counts as right."""
    if dataset == "scienceqa":
        return [data.answer(dataset, fields)]
    found: list[str] = fields["answers" if dataset == "textvqa" else "answer"]
    return found


def score(model: Any, processor: Any, dataset: str, side: int, arguments: argparse.Namespace) -> None:
    """Print the figures of one task at one size."""
    total, exact, parts = [0, 0], 0, {}
    wrong: list[str] = []
    for start in range(0, arguments.count, arguments.batch):
        samples = [tasks.sample(dataset, row) for row in range(start, min(start + arguments.batch, arguments.count))]
        for sample, hypothesis in zip(samples, answers(model, processor, dataset, samples, side), strict=True):
            accepted = references(dataset, sample.fields)
            wrong_words, words = edits(accepted, hypothesis)
            total[0] += wrong_words
            total[1] += words
            exact += wrong_words == 0
            kind = part(dataset, sample)
            parts.setdefault(kind, []).append(wrong_words == 0)
            if wrong_words:
                wrong.append(f"{accepted[0]!r} -> {hypothesis!r}")
    shares = ", ".join(f"{kind} {sum(right)}/{len(right)}" for kind, right in sorted(parts.items()))
    print(
        f"{side} px  {dataset:9}  WER {total[0] / total[1]:.4f}  exact {exact / arguments.count:.4f}  ({shares})",
        flush=True,
    )
    for line in wrong[: arguments.show]:
        print("    ", line)


def part(dataset: str, sample: tasks.DrawnSample) -> str:
    """Tell what kind of row it is, for the breakdown."""
    if dataset == "textvqa":
        return "small" if sample.scene.words[0].pixel == tasks.SMALL_PIXEL else "ordinary"
    if dataset == "scienceqa":
        return "-".join(str(sample.fields["question"]).split()[:2]).lower()
    return f"{len(sample.scene.things)} objects"


def main() -> None:
    """Score the given folder."""
    parser = argparse.ArgumentParser(description="Score the bundled model.")
    parser.add_argument("folder", type=Path, nargs="?", default=MODEL_FOLDER)
    parser.add_argument("--sides", type=int, nargs="+", default=(224, 448))
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--count", type=int, default=EVALUATION_ROWS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--show", type=int, default=0, help="print this many wrong answers")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(arguments.folder, dtype=torch.float32).to(device).eval()
    processor = AutoProcessor.from_pretrained(arguments.folder)
    for side in arguments.sides:
        for dataset in arguments.datasets:
            score(model, processor, dataset, side, arguments)


if __name__ == "__main__":
    main()
