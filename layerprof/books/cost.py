"""What an answer that is right costs: the joules of a sample over the rate of right answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerprof.energy.amount import NORMAL_95
from layerprof.quality.bootstrap import RESAMPLES, SEED, Draws, Floats
from layerprof.records import Energy

NO_METRIC = "the dataset has no metric that tells which answers are right"
NONE_JUDGED = "no sample has a reference to judge its answer by"
NONE_RIGHT = "no answer was right"


def per_correct_answer(energy: Energy, scores: Sequence[float | None], metric_name: str | None) -> dict[str, Any]:
    """Return `per_correct_answer`, its interval and the reason where there is none: fields of `Energy`, joules.

    `scores` are the task metric of the samples that the energy is of, one each: 1 for a right answer, a fraction for
    one that is partly right, None for one that has no reference. The cost is joules per sample over the mean of the
    scores that are there, so that a sample without one counts as right as often as the others.

    The interval is that of `cost_interval`. Without a metric, joules or a right answer all but the reason are None.
    """
    known = [score for score in scores if score is not None]
    reason = _why_none(energy, known, metric_name)
    if reason is not None or energy.per_sample is None:
        return _fields(None, None, reason)
    return _fields(energy.per_sample * len(known) / sum(known), _interval(energy, known), None)


def cost_interval(joules: tuple[float, tuple[float, float]], scores: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of joules per sample over the mean score, given the joules with their own interval.

    Two doubts are joined, which know nothing of each other: how well the joules were measured, and which samples the
    scores happen to be of. They are propagated as distributions by drawing (JCGM 101:2008, Supplement 1 to the GUM,
    section 7): joules from a normal distribution whose 95 % interval is the one given, the mean score from a bootstrap
    over samples, and the quotient of each pair; the ends are percentiles 2.5 and 97.5 of the quotients. A quotient of
    intervals has no such meaning, and a formula by relative variances (Fieller's, or the delta method) wants a mean
    that is many deviations from 0, as it is not for a few samples that are mostly wrong. That samples cost different
    joules is not in it: no sensor tells those of one sample.

    None for fewer than two samples, and where more than 2.5 % of the resamples hold no right answer: then the upper end
    is beyond any number.
    """
    if len(scores) < 2:
        return None
    draws = Draws(len(scores), RESAMPLES)
    inverse = draws.ratios([1.0] * len(scores), list(scores))
    middle, (low, high) = joules
    drawn = np.random.default_rng([SEED, 1]).normal(middle, (high - low) / 2 / NORMAL_95, len(inverse))
    return _ends(drawn * inverse)


def ratio_interval(
    before: Energy, after: Energy, rights: tuple[Floats, Floats] | None = None
) -> tuple[float, float] | None:
    """Return the 95 % interval of one run's joules per sample over another's; None where one has no interval.

    With `rights`, resampled rates of right answers of the later and of the earlier run, it is that of joules per right
    answer. Joules of two runs are drawn apart, as in `cost_interval`.
    """
    times = len(rights[0]) if rights else RESAMPLES
    drawn = [_drawn(energy, times, number) for number, energy in enumerate((before, after), start=1)]
    if drawn[0] is None or drawn[1] is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = drawn[1] / drawn[0]
        return _ends(ratios * rights[1] / rights[0] if rights else ratios)


def _drawn(energy: Energy, times: int, number: int) -> Floats | None:
    """Draw joules per sample, as they were measured with what doubt."""
    if energy.ci95 is None or not energy.joules or energy.per_sample is None:
        return None
    deviation = (energy.ci95[1] - energy.ci95[0]) / 2 / NORMAL_95 / energy.joules
    return energy.per_sample * np.random.default_rng([SEED, number]).normal(1.0, deviation, times)


def _interval(energy: Energy, scores: Sequence[float]) -> tuple[float, float] | None:
    """Return the interval of a cost; None where the joules have none, since a part of the doubt is not known then."""
    if energy.ci95 is None or not energy.joules or energy.per_sample is None:
        return None
    share = energy.per_sample / energy.joules
    return cost_interval((energy.per_sample, (energy.ci95[0] * share, energy.ci95[1] * share)), scores)


def _ends(values: Floats) -> tuple[float, float] | None:
    low, high = (float(end) for end in np.percentile(values, (2.5, 97.5), method="inverted_cdf"))
    return (low, high) if np.isfinite(low) and np.isfinite(high) else None


def _why_none(energy: Energy, known: Sequence[float], metric_name: str | None) -> str | None:
    if energy.per_sample is None:
        return energy.reason or "no energy was measured"
    if metric_name is None:
        return NO_METRIC
    if not known:
        return NONE_JUDGED
    return None if sum(known) > 0 else NONE_RIGHT


def _fields(value: float | None, ci95: tuple[float, float] | None, reason: str | None) -> dict[str, Any]:
    return {"per_correct_answer": value, "per_correct_answer_ci95": ci95, "per_correct_answer_reason": reason}
