"""From windows of replayed calls to joules a call: rounds fitted within a phase, a call of a kind lent to all of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerprof.energy.amount import Amount
from layerprof.energy.blocks import BlockFit, fit_blocks
from layerprof.energy.counter import Floats
from layerprof.energy.replayed import ReplayReading, ReplayRow
from layerprof.energy.windows import WindowReading
from layerprof.readings import Key
from layerprof.records import Phase, Quality

Counted = tuple[WindowReading, int]


@dataclass(frozen=True, slots=True)
class CallWindows:
    """The windows of one captured call, by round, with how often it was made in each.

    `cold` are those with weights in turn, `hot` those with one set. `host_bound` says that in each cold one the device
    waited for its host; None where nobody looked.
    """

    key: Key
    cold: tuple[Counted, ...]
    hot: tuple[Counted, ...] = ()
    host_bound: bool | None = None
    refusal: str | None = None
    remark: str | None = None


def summarise(
    calls: Sequence[CallWindows],
    members: Mapping[Key, Hashable],
    *,
    context_w: Amount | None = None,
    gap_w: Amount | None = None,
    in_situ_s: Mapping[Key, float] | None = None,
    stopped: str = "",
    reason: str | None = None,
) -> ReplayReading:
    """Return a row for every member: its own figure, that of its kind's representative, or why there is none.

    `members` are all layers and phases that were called, with their kind. `context_w` is the power of the resident,
    idle model, `gap_w` that between kernels, both in watts. Rows of one phase are fitted together. `in_situ_s` are
    seconds a call in the model, in the window that the books are of.
    """
    if reason is not None:
        rows = {key: _missing(reason) for key in members}
        return ReplayReading(rows, reason=reason, stopped="there is no sensor")
    own: dict[Key, ReplayRow] = {}
    for phase in Phase:
        group = [c for c in calls if c.key[1] is phase]
        own.update(_phase_rows([c for c in group if c.refusal is None], context_w, gap_w))
        own.update({c.key: _missing(c.refusal) for c in group if c.refusal is not None})
    by_kind = {members[key]: key for key in own if key in members and own[key].energy is not None}
    rows = {}
    for key, kind in members.items():
        if key in own:
            rows[key] = own[key]
        elif kind in by_kind:
            rows[key] = _lent(own[by_kind[kind]], by_kind[kind][0])
        else:
            rows[key] = _missing("the energy budget did not reach it; give a larger --energy-budget")
    reading = ReplayReading(
        rows=rows,
        context_w=context_w,
        gap_w=gap_w,
        stopped=stopped,
        rounds=max((len(c.cold) for c in calls), default=0),
    )
    return reading.placed(in_situ_s) if in_situ_s else reading


def _phase_rows(group: Sequence[CallWindows], context: Amount | None, waiting: Amount | None) -> dict[Key, ReplayRow]:
    if not group:
        return {}
    cold = _matrix([c.cold for c in group], waiting)
    fit = fit_blocks(cold)
    return {c.key: _row(c, fit, index, int(np.isfinite(cold[index]).sum()), context) for index, c in enumerate(group)}


def _row(calls: CallWindows, fit: BlockFit, index: int, rounds: int, context: Amount | None) -> ReplayRow:
    joules = float(fit.joules[index])
    if not np.isfinite(joules):
        reasons = dict.fromkeys(w.reason for w, _ in calls.cold if w.reason)
        return _missing("; ".join(reasons) or "no window was measured before the end")
    low, high = (float(x) for x in fit.ci95[index])
    energy = Amount(joules, (low, high) if np.isfinite(low) else None)
    good = [(w, n) for w, n in calls.cold if w.energy is not None]
    seconds = float(np.nanmean(_seconds(calls.cold)))
    hot = _matrix([calls.hot], None)[0]
    warm = [s for s in _seconds(calls.hot) if np.isfinite(s)]
    flags = tuple(dict.fromkeys(f for w, _ in good for f in w.flags))
    notes = [calls.remark] if calls.remark else []
    notes += [f"some windows: {', '.join(flags)}"] if flags else []
    notes += ["one round only, so no interval"] if energy.ci95 is None else []
    return ReplayRow(
        energy=energy,
        active=_active(energy, seconds, context),
        hot_j=float(np.nanmean(hot)) if np.isfinite(hot).any() else None,
        seconds=seconds,
        rounds=rounds,
        quality=Quality.REPLAYED,
        reason="; ".join(notes) or None,
        flags=flags,
        measured_on=calls.key[0],
        relative_u=float(fit.relative_u[index]),
        common_u=fit.common_u,
        hot_s=float(np.mean(warm)) if warm else None,
        host_bound=calls.host_bound,
    )


def _matrix(rows: Sequence[Sequence[Counted]], waiting: Amount | None) -> Floats:
    """Joules a call, (layers, rounds), each for the mean seconds of its row; NaN for windows without a figure.

    A round in which the host was slower holds more waiting, at the power `waiting`, for the same work (`place.py`).
    That says nothing about the layer, and would widen the intervals of all.
    """
    most = max((len(r) for r in rows), default=0)
    found = np.full((len(rows), max(1, most)), np.nan)
    for i, row in enumerate(rows):
        seconds = _seconds(row)
        usual = float(np.nanmean(seconds)) if np.isfinite(seconds).any() else 0.0
        for r, (window, count) in enumerate(row):
            if window.energy is not None and count:
                found[i, r] = window.energy.joules / count
                found[i, r] += waiting.joules * (usual - seconds[r]) if waiting else 0.0
    return found


def _seconds(row: Sequence[Counted]) -> Floats:
    """Seconds a call, (rounds,); NaN for windows without joules."""
    return np.array([w.duration_s / n if w.energy is not None and n else np.nan for w, n in row], dtype=np.float64)


def _active(energy: Amount, seconds: float, context: Amount | None) -> Amount | None:
    """Joules above the resident idle power, `u^2 = u^2(e) + t^2 u^2(P_ctx)`."""
    return energy - context * seconds if context else None


def _lent(row: ReplayRow, name: str) -> ReplayRow:
    text = f"class representative: measured on {name}"
    return replace(row, reason=f"{text}; {row.reason}" if row.reason else text, measured_on=name)


def _missing(reason: str) -> ReplayRow:
    return ReplayRow(None, None, None, None, 0, Quality.UNAVAILABLE, reason)
