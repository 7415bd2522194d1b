"""Whether a cell's answers can be believed: what is counted, and from when on it is flagged. Pure."""

from __future__ import annotations

from layerprof.machine import other_load
from layerprof.records import Run
from layerprof.sweep.cells import Guards

LEAST_INVARIANT = 0.9
"""Rounding of half-precision arithmetic changes an answer here and there; padding on the wrong side changes most."""
MOST_TRUNCATED = 0.1
MOST_PADDING = 0.5
LONGEST = 5.0
"""Answers with more than this many times the references' words make a word error rate of insertions."""


def judge(
    run: Run, batch_invariant: float | None, checked: int, not_finite: int | None, reason: str | None = None
) -> Guards:
    """Return the guards of a run. `reason` says why the batch invariance was not checked."""
    totals, wer = run.totals, run.totals.wer
    prompt = (totals.prompt_tokens or 0) + (totals.pad_tokens or 0)
    scored = run.samples - wer.unscored if wer else 0
    found = Guards(
        batch_invariant=batch_invariant,
        checked=checked,
        truncated_share=wer.truncated_share if wer else None,
        hypothesis_words=wer.hypothesis_words / scored if wer and scored else None,
        reference_words=wer.reference_words / scored if wer and scored else None,
        padding_share=(totals.pad_tokens or 0) / prompt if prompt else None,
        other_load=max(run.passes.get("other_load", {}).values(), default=None),
        not_finite=not_finite,
        reason=reason,
    )
    return found.model_copy(update={"flags": flags(found)})


def flags(guards: Guards) -> tuple[str, ...]:
    """Return what is wrong, one sentence each, the worst first."""
    found = []
    if guards.not_finite:
        found.append(f"logits were NaN or infinite in {guards.not_finite} batches")
    if guards.batch_invariant is not None and guards.batch_invariant < LEAST_INVARIANT:
        same = f"{_percent(guards.batch_invariant)} of {guards.checked} samples"
        found.append(f"answers depend on the batch: {same} are answered the same alone")
    words, due = guards.hypothesis_words, guards.reference_words
    if words is not None and due and words > LONGEST * due:
        found.append(f"answers are long: {words:.1f} words where the references have {due:.1f}")
    if guards.truncated_share is not None and guards.truncated_share > MOST_TRUNCATED:
        found.append(f"{_percent(guards.truncated_share)} of the answers were cut at the token limit")
    if guards.padding_share is not None and guards.padding_share > MOST_PADDING:
        found.append(f"{_percent(guards.padding_share)} of the prompt tokens are padding")
    if guards.other_load is not None and guards.other_load >= other_load.MUCH:
        found.append(f"the machine was busy: other programs took {_percent(guards.other_load)} of the processors")
    return tuple(found)


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
