"""Train the bundled model.

    python experiments/train_demo/train.py vision --minutes 25 --start layerprof/demo/model --work /tmp/demo_train
    python experiments/train_demo/train.py joint  --minutes 60 --work /tmp/demo_train --export FOLDER

The next-token loss alone leaves a small model on the language prior for thousands of steps. So the vision tower learns
first, from a label for every image token, given in the decoder's own tied embedding: a token that shows an A points to
"A", one inside a red circle half to " red" and half to " circle". The decoder then only has to look up and copy.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import build
import data
import fast
import torch
import torch.distributed as group
from labels import Labels
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name everyone knows)
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from layerprof.settings import DATASETS

QUESTION, CHOICE = 1, 3
"""The decoder layers after which a question must know its answer, and a choice whether it is right."""
LETTERS = 6


@dataclass
class Student:
    """The model, and the heads that help it learn and are then thrown away."""

    model: Any
    tokenizer: Any
    heads: nn.ModuleDict
    device: torch.device
    mean: Tensor = field(init=False)
    std: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.mean = torch.tensor(build.CLIP_MEAN, device=self.device)
        self.std = torch.tensor(build.CLIP_STD, device=self.device)

    @property
    def visual(self) -> Any:
        """The vision tower."""
        return self.model.model.visual

    @property
    def text(self) -> Any:
        """The decoder."""
        return self.model.model.language_model

    def state(self) -> dict[str, Any]:
        """Everything a later stage starts from."""
        return {"model": self.model.state_dict(), "heads": self.heads.state_dict()}


def student(folder: Path, device: torch.device) -> Student:
    """Load a model folder in fp32 and give it fresh heads."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(device)
    width = model.config.text_config.hidden_size
    heads = nn.ModuleDict({"index": nn.Linear(width, LETTERS), "option": nn.Linear(width, 1)}).to(device)
    return Student(model, AutoTokenizer.from_pretrained(folder), heads, device)


def dense_loss(one: Student, seen: Tensor, labels: Labels) -> tuple[Tensor, dict[str, float]]:
    """Image tokens (B, N, hidden) against their labels; and what share of letters, shapes and places is right."""
    table = one.text.embed_tokens.weight
    states = F.rms_norm(seen, seen.shape[-1:]).flatten(0, 1)
    logits = F.linear(states, table)
    first, second, weight, index = (
        tensor.to(one.device).flatten() for tensor in (labels.first, labels.second, labels.weight, labels.index)
    )
    logp = F.log_softmax(logits, dim=-1)
    picked = (logp.gather(1, first[:, None]) + logp.gather(1, second[:, None])).squeeze(1) / 2
    loss = -(picked * weight).sum() / weight.sum()
    placed = (index >= 0) & (weight > 0)
    figures = {"dense": float(loss.detach())}
    if placed.any():
        guess = one.heads["index"](states[placed])
        index_loss = F.cross_entropy(guess, index[placed])
        loss = loss + 0.3 * index_loss
        figures["index"] = float((guess.argmax(-1) == index[placed]).float().mean())
        figures["letter"] = float((logits[placed].argmax(-1) == first[placed]).float().mean())
    thing = (first != second) & (weight == 1) & (index < 0)
    if thing.any():
        two = logits[thing].topk(2).indices
        both = (two == first[thing][:, None]).any(1) & (two == second[thing][:, None]).any(1)
        figures["thing"] = float(both.float().mean())
    return loss, figures


def text_loss(one: Student, dataset: str, texts: data.Texts, seen: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Next-token loss on the answers of one task's rows.

    A multiple-choice answer is a chain: find the thing, match it with a choice, fetch that choice's letter. So early in
    the decoder the question must know its answer, and in the middle each choice whether it is right, and its letter.
    """
    ids, target = texts.ids.to(one.device), texts.target.to(one.device)
    table = one.text.embed_tokens.weight
    x = one.text.embed_tokens(ids)
    count = seen.shape[1]
    x = torch.cat((x[:, : texts.prefix], seen, x[:, texts.prefix + count :]), dim=1)
    positions = fast.text_positions(texts.prefix, math.isqrt(count), x.shape[1]).to(one.device)
    final, states = fast.language(one.text, x, positions)
    asked = target >= 0
    logits = F.linear(final[asked], table)
    wanted = target[asked]
    loss = F.cross_entropy(logits, wanted)
    right = torch.ones_like(target, dtype=torch.bool)
    right[asked] = logits.argmax(-1) == wanted
    figures = {dataset: float(loss.detach()), f"{dataset}_exact": float(right.all(1).float().mean())}
    if (texts.option >= 0).any():
        extra, more = chain_loss(one, texts, states)
        return loss + extra, figures | more
    return loss, figures


def chain_loss(one: Student, texts: data.Texts, states: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Add stepping stones of a multiple-choice answer, where a short chain of look-ups would have them."""
    option, named = texts.option.to(one.device), texts.named.to(one.device)
    table = one.text.embed_tokens.weight
    judged = option >= 0
    chosen = F.rms_norm(states[CHOICE][judged], states[CHOICE].shape[-1:])
    guess = one.heads["option"](chosen).squeeze(-1)
    letters = torch.tensor(one.tokenizer.convert_tokens_to_ids(list("ABCD")), device=one.device)
    loss = F.binary_cross_entropy_with_logits(guess, option[judged].float())
    loss = loss + 0.3 * F.cross_entropy(F.linear(chosen, table), letters.repeat(len(chosen) // len(letters)))
    figures = {"option": float(((guess > 0) == (option[judged] > 0)).float().mean())}
    known = named >= 0
    if known.any():
        found = F.linear(F.rms_norm(states[QUESTION][known], states[QUESTION].shape[-1:]), table)
        loss = loss + F.cross_entropy(found, named[known])
        figures["named"] = float((found.argmax(-1) == named[known]).float().mean())
    return loss, figures


def optimizer(one: Student, rates: dict[str, float]) -> torch.optim.AdamW:
    """AdamW with a learning rate for the tower, the decoder and the heads; no decay on vectors and embeddings."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, weight in one.model.named_parameters():
        part = "vision" if "visual" in name else "language"
        weight.requires_grad_(rates[part] > 0)
        if rates[part] > 0:
            groups.setdefault((part, weight.ndim > 1 and "embed_tokens" not in name), []).append(weight)
    settings = [
        {"params": weights, "lr": rates[part], "peak": rates[part], "weight_decay": 0.02 if decay else 0.0}
        for (part, decay), weights in groups.items()
    ]
    heads = {"params": list(one.heads.parameters()), "lr": 1e-3, "peak": 1e-3, "weight_decay": 0.0}
    return torch.optim.AdamW([*settings, heads], betas=(0.9, 0.98))


def pace(adam: torch.optim.Optimizer, step: int, progress: float) -> None:
    """Set the learning rates: warm-up over 40 steps, then a cosine over the budget down to 2 %."""
    factor = min(1.0, (step + 1) / 40) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
    for settings in adam.param_groups:
        settings["lr"] = settings["peak"] * factor


class Team:
    """Several single-thread processes that average their gradients once a step.

    On a busy CPU this wastes far less than threads that wait for each other at every operation. Alone, a team of one.
    """

    def __init__(self, rank: int, size: int, work: Path) -> None:
        self.rank, self.size = rank, size
        if size > 1:
            group.init_process_group("gloo", init_method=f"file://{work}/team", rank=rank, world_size=size)

    def share(self, weights: list[nn.Parameter], progress: float) -> float:
        """Average all gradients over the team, and the progress, so that all stop at the same step."""
        if self.size == 1:
            return progress
        flat = torch.cat([torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights])
        flat = torch.cat((flat, flat.new_tensor([progress])))
        group.all_reduce(flat)
        flat /= self.size
        pieces = flat[:-1].split([weight.numel() for weight in weights])
        for weight, piece in zip(weights, pieces, strict=True):
            if weight.grad is not None:
                weight.grad.copy_(piece.view_as(weight))
        return float(flat[-1])


class Log:
    """Running means, printed every so often."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, figures: dict[str, float]) -> None:
        """Note the figures of one step."""
        for name, value in figures.items():
            self.sums.setdefault(name, []).append(value)

    def line(self) -> str:
        """Give the means since the last line."""
        text = "  ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in self.sums.items())
        self.sums.clear()
        return text


def train(one: Student, arguments: argparse.Namespace) -> None:
    """Both stages: `vision` knows only crowded scenes, `joint` the tasks (with a share of crowded scenes)."""
    rates = {"vision": arguments.vision_rate, "language": arguments.language_rate}
    adam = optimizer(one, rates)
    crowded = iter(loader(data.Crowded(one.tokenizer, arguments.batch, arguments.seed)))
    mixed = iter(())
    if arguments.stage == "joint":
        per_task = dict(zip(DATASETS, arguments.per_task, strict=True))
        sides = dict(zip((224, 336, 448), arguments.sides, strict=True))
        mixed = iter(loader(data.Mixed(one.tokenizer, per_task, sides, arguments.seed)))
    weights = [weight for settings in adam.param_groups for weight in settings["params"]]
    team = Team(arguments.rank, arguments.ranks, arguments.work)
    log, start, step, progress = Log(), time.monotonic(), 0, 0.0
    saved = start
    while progress < 1:
        pace(adam, step, progress)
        if arguments.stage == "vision" or (arguments.crowded and step % arguments.crowded == 0):
            loss = crowded_step(one, next(crowded), log)
        else:
            loss = mixed_step(one, next(mixed), log, arguments)
        adam.zero_grad()
        loss.backward()
        now = time.monotonic()
        progress = team.share(weights, (now - start) / (arguments.minutes * 60))
        nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
        step += 1
        if step % arguments.every == 0:
            print(f"{now - start:6.0f} s  step {step:5d}  {log.line()}", flush=True)
        if team.rank == 0 and (progress >= 1 or now - saved > 120):
            saved = now
            torch.save(one.state(), arguments.work / f"{arguments.name}.pt")


def loader(dataset: Any) -> Any:
    """Draw in a second process."""
    return DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=3)


def crowded_step(one: Student, batch: tuple[Tensor, Labels], log: Log) -> Tensor:
    """Loss of the vision tower on crowded scenes."""
    images, labels = batch
    pixels = fast.patches(images.to(one.device), one.mean, one.std)
    loss, figures = dense_loss(one, fast.vision(one.visual, pixels, images.shape[1]), labels)
    log.add(figures)
    return loss


def mixed_step(one: Student, batch: Any, log: Log, arguments: argparse.Namespace) -> Tensor:
    """Loss on task rows: the answers and, unless the tower is frozen, the image tokens."""
    side, images, labels, texts = batch
    pixels = fast.patches(images.to(one.device), one.mean, one.std)
    frozen = arguments.vision_rate == 0
    with torch.set_grad_enabled(not frozen):
        seen = fast.vision(one.visual, pixels, side)
    loss = torch.zeros((), device=one.device)
    tag = "" if side == 224 else f"@{side}"
    if not frozen:
        loss, figures = dense_loss(one, seen, labels)
        loss = arguments.dense * loss
        log.add({name + tag: value for name, value in figures.items()})
    start = 0
    for dataset, rows in texts.items():
        part, figures = text_loss(one, dataset, rows, seen[start : start + len(rows.ids)])
        start += len(rows.ids)
        loss = loss + part
        log.add({name + tag: value for name, value in figures.items()})
    return loss


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the bundled model.")
    parser.add_argument("stage", choices=("vision", "joint"))
    parser.add_argument(
        "--start", type=Path, default=Path("layerprof/demo/model"), help="folder in Hugging Face format"
    )
    parser.add_argument("--resume", type=Path, help="weights of an earlier stage (.pt)")
    parser.add_argument("--work", type=Path, default=Path("/tmp/demo_train"))
    parser.add_argument("--name", default="", help="of the saved weights; the stage by default")
    parser.add_argument("--export", type=Path, help="write the finished model into this folder")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--per-task", type=int, nargs=3, default=(8, 8, 8), help="rows of textvqa, scienceqa, coco")
    parser.add_argument("--sides", type=float, nargs=3, default=(1, 0, 0), help="share of 224, 336, 448 px")
    parser.add_argument("--crowded", type=int, default=0, help="every n-th joint step is a crowded one")
    parser.add_argument("--dense", type=float, default=0.3, help="weight of the dense loss in the joint stage")
    parser.add_argument("--vision-rate", type=float, default=1e-3)
    parser.add_argument("--language-rate", type=float, default=1e-3)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rank", type=int, default=0, help="of this process in a team")
    parser.add_argument("--ranks", type=int, default=1, help="processes in the team; all get the same arguments")
    arguments = parser.parse_args()
    arguments.name = arguments.name or arguments.stage
    arguments.seed = arguments.seed * arguments.ranks + arguments.rank
    return arguments


def main() -> None:
    """Run one stage."""
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    one = student(arguments.start, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if arguments.resume:
        state = torch.load(arguments.resume, map_location=one.device)
        one.model.load_state_dict(state["model"])
        one.heads.load_state_dict(state["heads"])
    train(one, arguments)
    if arguments.export and arguments.rank == 0:
        build.save(one.model, arguments.export)


if __name__ == "__main__":
    main()
