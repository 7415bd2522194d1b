"""Each dataset's own metric of one answer, between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from layerprof.quality import normalise

Judge = Callable[[Sequence[str], str, Sequence[str]], float]
"""(references, answer, options) -> the metric of the answer."""


def vqa_accuracy(references: Sequence[str], answer: str, _choices: Sequence[str] = ()) -> float:
    """Return the VQA accuracy of an answer: the mean, over each reference left out, of min(1, others that agree / 3).

    With fewer than four references, all the others must agree; with one, the answer must equal it.
    """
    given = normalise.evalai(answer)
    expected = [normalise.evalai(reference) for reference in references]
    if len(expected) == 1:
        return float(given == expected[0])
    agree = sum(text == given for text in expected)
    enough = min(3, len(expected) - 1)
    return float(np.mean([min(1.0, (agree - (text == given)) / enough) for text in expected]))


def exact_match(references: Sequence[str], answer: str, choices: Sequence[str] = ()) -> float:
    """Return 1 when the answer names the right option, else 0."""
    named = normalise.letter(answer, choices)
    return float(named is not None and named in {reference.strip().upper() for reference in references})


JUDGES: dict[str, Judge] = {"vqa_accuracy": vqa_accuracy, "exact_match": exact_match}


def judge(metric: str | None) -> Judge | None:
    """Return what judges by a metric, None without one. Raises ValueError for an unknown metric."""
    if metric is None:
        return None
    if metric not in JUDGES:
        raise ValueError(f"unknown metric {metric!r}: use one of {', '.join(JUDGES)}")
    return JUDGES[metric]
