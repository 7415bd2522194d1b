"""Our rates beside jiwer's and torchmetrics' on awkward answers: where they agree, and where a peer gives no rate.

    python experiments/peers/quality.py [--json FILE]

Each set is a list of (references, answer). jiwer and torchmetrics take one reference and normalise nothing, so they
stand beside `corpus_first`; VQA accuracy stands beside its formula written out. A peer that raises has its error as its
figure.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rows import machine, save, show

from layerprof.quality import task_metrics, wer

Pair = tuple[tuple[str, ...], str]

SETS: dict[str, list[Pair]] = {
    "plain": [(("a red car",), "a red car"), (("the sign says stop",), "stop sign"), (("yes",), "no")],
    "verbose answers": [((word,), f"The answer to your question is {word}, I think.") for word in ("stop", "7", "red")],
    "empty answers": [(("a red car",), ""), (("yes",), " ")],
    "empty references": [(("",), "something said"), (("yes",), "yes")],
    "only empty references": [(("",), "something said"), (("",), "")],
    "punctuation only": [(("...",), "yes"), (("stop!",), "STOP")],
    "white space": [(("a  red\tcar",), "a red\ncar"), ((" yes ",), "yes")],
    "Chinese, Arabic, Hindi, emoji": [
        (("停止",), "停 止"),
        (("مرحبا بالعالم",), "مرحبا"),
        (("नमस्ते दुनिया",), "नमस्ते दुनिया"),
        (("🙂 ok",), "ok 🙂"),
    ],
    "3,000 words against one": [(("word",), "word " * 3000), (("word " * 3000,), "word")],
    "5,000 letters without a space": [(("x" * 5000,), "x" * 4999)],
}


def attempt(rate: Callable[[], float | None]) -> str:
    """Return a rate as text, or the error that a peer raised instead."""
    try:
        value = rate()
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:40]}"
    return "none" if value is None else f"{value:.6g}"


def compare(pairs: Sequence[Pair]) -> list[str]:
    """Return our three rates and each peer's of the first references."""
    references, answers = [refs for refs, _ in pairs], [answer for _, answer in pairs]
    ours, _, _ = wer.score(references, answers, [False] * len(pairs), metric=None)
    first = [refs[0] for refs in references]
    cells = [attempt(lambda value=value: value) for value in (ours.corpus_min, ours.corpus_first, ours.mean_clipped)]
    return [*cells, str(ours.unscored), attempt(lambda: _jiwer(first, answers)), _torchmetrics(first, answers)]


def _jiwer(references: list[str], answers: list[str]) -> float:
    import jiwer

    return float(jiwer.wer(references, answers))


def _torchmetrics(references: list[str], answers: list[str]) -> str:
    if importlib.util.find_spec("torchmetrics") is None:
        return "not installed"
    metrics: Any = importlib.import_module("torchmetrics.text")
    return attempt(lambda: float(metrics.WordErrorRate()(answers, references)))


def vqa_rows() -> list[list[Any]]:
    """Return VQA accuracy of an answer that n of ten references share, ours and by the formula written out."""
    rows = []
    for agreeing in range(11):
        references = ["yes"] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
        expected = (agreeing * min(1, (agreeing - 1) / 3) + (10 - agreeing) * min(1, agreeing / 3)) / 10
        ours = task_metrics.vqa_accuracy(references, "Yes.")
        rows.append([agreeing, f"{ours:.6g}", f"{expected:.6g}", "yes" if abs(ours - expected) < 1e-12 else "NO"])
    return rows


def speed() -> tuple[float, float]:
    """Return seconds to score 300 samples of ten references, and jiwer's alone for their first references."""
    import jiwer

    references = [tuple(f"word {number % (row + 2)}" for row in range(10)) for number in range(300)]
    answers = [f"the word {number}" for number in range(300)]
    start = time.perf_counter()
    wer.score(references, answers, [False] * 300, metric="vqa_accuracy")
    middle = time.perf_counter()
    jiwer.process_words([refs[0] for refs in references], answers)
    return middle - start, time.perf_counter() - middle


def main() -> None:
    """Compare, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    header = ["set", "corpus_min", "corpus_first", "mean_clipped", "unscored", "jiwer", "torchmetrics"]
    rows = [[name, *compare(pairs)] for name, pairs in SETS.items()]
    where = machine("layerprof", "jiwer", "torchmetrics")
    show("quality", "Word error rates of awkward sets", header, rows, where)
    accuracy = vqa_rows()
    show("vqa", "VQA accuracy by how many of ten agree", ["agree", "ours", "formula", "same"], accuracy, where)
    ours, theirs = speed()
    seconds = [["layerprof, with intervals and VQA accuracy", f"{ours:.3f} s"], ["jiwer, rate only", f"{theirs:.3f} s"]]
    show("quality-speed", "Scoring 300 answers of ten references", ["scored by", "wall"], seconds, where)
    save(options.json, {"machine": where, "rates": [dict(zip(header, row, strict=True)) for row in rows]})


if __name__ == "__main__":
    main()
