"""What a run's reader must know, in sentences: each says what is wrong, what still holds, and what may help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerprof import registry
from layerprof.measure.session import Session
from layerprof.readings import KernelReading

NAMED = 10
"""Samples that are named before the rest is only counted."""


def earlier_traces(device: str) -> str | None:
    """Return that times and joules will hold what an earlier trace left behind; None where they will not."""
    if device == "cpu" or not registry.load(registry.KERNELS).recorded_before():
        return None
    return (
        "This process recorded a trace before, and the profiler stays attached to the GPU: times and joules may be "
        "larger by some per cent (`layerprof doctor` tells by how much); measure again in a new process."
    )


def left_out(bad: Mapping[str, str]) -> str | None:
    """Return in one sentence which samples were left out since their pictures cannot be read; None for none."""
    if not bad:
        return None
    named = "; ".join(list(bad.values())[:NAMED]) + (f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else "")
    count = (
        "1 sample was left out, whose picture" if len(bad) == 1 else f"{len(bad)} samples were left out, whose pictures"
    )
    return f"{count} cannot be read: {named}."


def not_finite(session: Session, bad: int, of: int) -> str:
    """Return in words that logits were NaN or infinite, what of the run still holds, and what may help."""
    return (
        f"Logits were NaN or infinite in {bad} of {of} batches: the answers there, and so the rates of errors, mean "
        f"nothing; times, FLOPs and joules are of the work that was done. {_why_not_finite(session)}"
    )


def other_lengths(other: int, of: int) -> str:
    """Return in words that answers had another length when FLOPs were counted than when times were taken."""
    return (
        f"In {other} of {of} batches the answer had another length when FLOPs and bytes were counted than when it was "
        "timed (a compiled or replayed decoder rounds otherwise): FLOPs, bytes and calls of decode differ by that. "
        "--fixed-tokens makes all answers one length."
    )


def _why_not_finite(session: Session) -> str:
    facts = session.subject.provenance
    used, own = facts.get("dtype"), facts.get("checkpoint_dtype")
    broken = sum(map(_is_broken, session.subject.model.parameters()))
    if broken and used in ("fp32", own):
        return f"{broken} of the model's tensors hold such numbers themselves: get the checkpoint anew."
    if used == "fp32":
        return "Its weights are finite: run the checkpoint outside layerprof to see whether it does the same there."
    why = "fp16 cannot hold magnitudes above 65,504: try" if used == "fp16" else "Try"
    other = "bf16" if used == "fp16" and own != "fp16" else "fp32"
    return f"{why} --dtype {other}{', the format of the checkpoint' if other == own else ''}."


def _is_broken(weight: Any) -> bool:
    """Tell whether a tensor holds NaN or infinity; one of a format that cannot be looked into is taken to hold none."""
    try:
        return bool(weight.is_floating_point() and not weight.isfinite().all())
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return False


def lost(kernels: KernelReading | None) -> str | None:
    """Return in one sentence what the profiler lost, None where it lost nothing."""
    if kernels is None or not kernels.lost.launches:
        return None
    gone = kernels.lost
    much = "for how long they ran is not known"
    if gone.may_be_s is not None:
        much = f"perhaps {gone.may_be_s * 1e3:.3g} ms"
        much += f", {100 * gone.may_be_s / kernels.total_s:.1f} % of what was recorded" if kernels.total_s else ""
    return (
        f"The profiler lost {gone.launches} of {gone.of} launches ({much}): busy times are too small by that, and the "
        "books name it. `layerprof doctor` tells whether traces can be trusted here."
    )
