"""Training data: crowded scenes with a label for each image token, and task samples as token ids."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from labels import CELL, LETTERS, Labeller, Labels, View, stacked, whole
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from layerprof.demo import tasks, words
from layerprof.demo.drawing import ADVANCE, CANVAS, GLYPH_HEIGHT, OBJECT_COLORS, SHAPES, Scene, Thing, Word, render


def crowded_text(rng: random.Random) -> Scene:
    """Many words on one canvas, so that one image teaches dozens of letters."""
    name, rgb = tasks.background(rng)
    pixel = tasks.SMALL_PIXEL if rng.random() < 0.12 else tasks.LARGE_PIXEL
    step = ADVANCE * pixel
    placed: list[Word] = []
    for y in range(0, CANVAS, GLYPH_HEIGHT * pixel):
        x = rng.choice((0, 2 * pixel)) + rng.randrange(3) * tasks.GRID
        while (room := (CANVAS - x + 2 * pixel) // step) > 0:
            text = "".join(rng.choices(LETTERS, k=min(room, rng.randint(1, 6))))
            if text not in words.EVALUATION:
                placed.append(Word(text, x, y, pixel, tasks.jitter(rng, rng.choice(tasks.INKS))))
                x += (len(text) * step // tasks.GRID + rng.randint(1, 2)) * tasks.GRID
    sign = None
    if rng.random() < 0.5:
        left, top = rng.randint(0, 200), rng.randint(0, 200)
        sign = (left, top, rng.randint(100, 448), rng.randint(60, 448), tasks.background(rng)[1])
    return Scene(name, rgb, words=tuple(placed), sign=sign)


def crowded_things(rng: random.Random) -> Scene:
    """As many shapes as find room."""
    name, rgb = tasks.background(rng)
    things: list[Thing] = []
    for _ in range(30):
        size = rng.randint(90, 150)
        x, y = rng.randint(0, CANVAS - size), rng.randint(0, CANVAS - size)
        if all(
            max(abs(2 * (x - t.x) + size - t.size), abs(2 * (y - t.y) + size - t.size)) > size + t.size + 16
            for t in things
        ):
            color = rng.choice(list(OBJECT_COLORS))
            things.append(Thing(color, rng.choice(SHAPES), x, y, size, tasks.jitter(rng, OBJECT_COLORS[color])))
    return Scene(name, rgb, things=tuple(things))


def resized(pixels: Any, side: int) -> Any:
    """Resize the canvas (448, 448, 3) to (side, side, 3): bicubic, as the processors do it."""
    if side == CANVAS:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


class Crowded(IterableDataset[Any]):
    """Endless batches of (uint8 images (B, 224, 224, 3), Labels): views of crowded scenes at the scales in use."""

    def __init__(self, tokenizer: Any, batch: int, seed: int) -> None:
        self.label, self.batch, self.seed = Labeller(tokenizer), batch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Labels]]:
        rng = random.Random(f"crowded/{self.seed}")
        while True:
            views = [
                self._view(rng, (crowded_text, crowded_things)[number % 6 == 5](rng)) for number in range(self.batch)
            ]
            yield torch.from_numpy(np.stack([pixels for pixels, _ in views])), stacked([labels for _, labels in views])

    def _view(self, rng: random.Random, scene: Scene) -> tuple[Any, Labels]:
        # Enlarged views hold fewer letters, hence their share; small letters enlarged look like ordinary ones.
        small = bool(scene.words) and scene.words[0].pixel == tasks.SMALL_PIXEL
        size = rng.choices((224, 336, 448), (1, 2, 4) if small else (12, 3, 8))[0]
        left, top = (rng.randrange(0, size - 224 + 1, 112) for _ in range(2))
        pixels = resized(render(scene), size)[top : top + 224, left : left + 224]
        return np.ascontiguousarray(pixels), self.label(scene, View(224, size / CANVAS, left, top))


def prompt(dataset: str, fields: dict[str, Any]) -> str:
    """Return the question as lmms-eval words it."""
    if dataset == "textvqa":
        return str(fields["question"]).capitalize() + "\nAnswer the question using a single word or phrase."
    if dataset == "coco":
        return "Provide a one-sentence caption for the provided image."
    context = f"Context: {fields['hint']}\n" if fields["hint"] else ""
    options = "\n".join(f"{LETTERS[at]}. {choice}" for at, choice in enumerate(fields["choices"]))
    return f"{context}{fields['question']}\n{options}\nAnswer with the option's letter from the given choices directly."


def answer(dataset: str, fields: dict[str, Any]) -> str:
    """Return the answer the model is trained to give."""
    if dataset == "textvqa":
        return str(fields["answers"][0])
    return str(fields["answer"][0]) if dataset == "coco" else LETTERS[fields["answer"]]


@dataclass(frozen=True)
class Texts:
    """One task's rows of a batch, token ids padded on the right, all (B, S).

    `target` is -100 where nothing is asked; `option` is 1 on the right choice, 0 on a wrong one and -1 elsewhere;
    `named` is the token of the right choice's name at the end of a question that has only one answer, else -100;
    `prefix` tokens stand before the image.
    """

    ids: Tensor
    target: Tensor
    option: Tensor
    named: Tensor
    prefix: int


class Encoder:
    """Samples -> Texts, through the tokenizer and the chat template of the checkpoint."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.pad = tokenizer.pad_token_id
        self.asks = tokenizer.encode("?\n", add_special_tokens=False)[0]
        self.newline = tokenizer.encode("\n", add_special_tokens=False)[0]

    def __call__(self, dataset: str, samples: list[tasks.DrawnSample], cells: int) -> Texts:
        """Encode rows of one task whose images have cells x cells tokens."""
        rows = [self._row(dataset, sample.fields, cells) for sample in samples]
        length = max(len(ids) for ids, _, _ in rows)
        ids = torch.full((len(rows), length), self.pad)
        target, named, option = torch.full_like(ids, -100), torch.full_like(ids, -100), torch.full_like(ids, -1)
        for at, (tokens, asked, options) in enumerate(rows):
            ids[at, : len(tokens)] = torch.tensor(tokens)
            # The state at one position predicts the token at the next.
            target[at, len(tokens) - asked - 1 : len(tokens) - 1] = torch.tensor(tokens[-asked:])
            for position, right in options:
                option[at, position] = int(right)
                if right and "in the picture" not in samples[at].fields["question"]:
                    named[at, tokens.index(self.asks)] = tokens[position]
        return Texts(ids, target, option, named, prefix=rows[0][0].index(self.image))

    def _row(self, dataset: str, fields: dict[str, Any], cells: int) -> tuple[list[int], int, list[tuple[int, bool]]]:
        """Token ids, how many at the end are the answer, and (position, right?) of each choice's last token."""
        content = [{"type": "image"}, {"type": "text", "text": prompt(dataset, fields)}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        asked = [*self.tokenizer.encode(answer(dataset, fields), add_special_tokens=False), self.end]
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        at = ids.index(self.image)
        ids[at : at + 1] = [self.image] * (cells * cells)
        options: list[tuple[int, bool]] = []
        if dataset == "scienceqa":
            for number in range(len(fields["choices"])):
                start = self._option(ids, LETTERS[number])
                options.append((ids.index(self.newline, start) - 1, number == fields["answer"]))
        return ids + asked, len(asked), options

    def _option(self, ids: list[int], letter: str) -> int:
        (name,) = self.tokenizer.encode(letter, add_special_tokens=False)
        return max(at for at, token in enumerate(ids) if token == name)


def _keep(rng: random.Random, sample: tasks.DrawnSample) -> bool:
    """Drop many questions about colours: those about shapes take longest to learn."""
    question = str(sample.fields["question"])
    return not question.startswith(("What color", "Which color")) or rng.random() < 0.4


class Mixed(IterableDataset[Any]):
    """Endless batches of (side, uint8 images (B, side, side, 3), Labels, {dataset: Texts}), the rows in task order."""

    def __init__(self, tokenizer: Any, per_task: dict[str, int], sides: dict[int, float], seed: int) -> None:
        self.encode, self.label = Encoder(tokenizer), Labeller(tokenizer)
        self.per_task, self.sides, self.seed = per_task, sides, seed

    def __iter__(self) -> Iterator[tuple[int, Tensor, Labels, dict[str, Texts]]]:
        alike = random.Random("sides")  # the same in every process of a team, so that their steps cost the same
        rng = random.Random(f"mixed/{self.seed}")
        index = 0
        while True:
            side = alike.choices(list(self.sides), list(self.sides.values()))[0]
            chosen: dict[str, list[tasks.DrawnSample]] = {}
            for dataset, count in self.per_task.items():
                # Larger images, fewer of them; but reading changes most with the size, so text keeps its number.
                share = 1.0 if dataset == "textvqa" else (224 / side) ** 2
                wanted = max(1, round(count * share)) if count else 0
                drawn = (tasks.sample(dataset, row, "training", self.seed) for row in itertools.count(index))
                chosen[dataset] = list(itertools.islice((one for one in drawn if _keep(rng, one)), wanted))
            index += 4 * max(self.per_task.values())
            every = [sample.scene for samples in chosen.values() for sample in samples]
            images = torch.from_numpy(np.stack([resized(render(scene), side) for scene in every]))
            texts = {name: self.encode(name, rows, side // CELL) for name, rows in chosen.items() if rows}
            yield side, images, stacked([self.label(scene, whole(side)) for scene in every]), texts
