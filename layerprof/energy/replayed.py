"""From windows of replayed calls to joules a call, per layer and phase, with intervals, labels and the books."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from layerprof.energy.amount import TOLERANCE, Amount, ends_of, joules_of
from layerprof.energy.blocks import BlockFit, fit_blocks
from layerprof.energy.closure import Closure, RowPart, close
from layerprof.energy.counter import Floats
from layerprof.energy.share import RowEnergy
from layerprof.energy.windows import WindowReading
from layerprof.readings import Key
from layerprof.records import Phase, Quality

TIME_RATIO = "time unlike in the model"
INTERRUPTED = "interrupted"
Counted = tuple[WindowReading, int]


@dataclass(frozen=True, slots=True)
class CallWindows:
    """The windows of one captured call, by round, with how often it was made in each.

    `cold` are those with weights in turn, `hot` those with one set.
    """

    key: Key
    cold: tuple[Counted, ...]
    hot: tuple[Counted, ...] = ()
    refusal: str | None = None
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """Joules a call of one layer in one phase. `energy` is None exactly where `quality` is `unavailable`.

    `active` is above the power of the resident, idle model (`energy - P_ctx x seconds`); `hot_j` with warm weights.
    `measured_on` is the layer whose calls were measured, another one of the same kind under a small budget.
    `relative_u` and `common_u` are for sums, see `closure.RowPart`.
    """

    energy: Amount | None
    active: Amount | None
    hot_j: float | None
    seconds: float | None
    rounds: int
    quality: Quality
    reason: str | None
    flags: tuple[str, ...] = ()
    measured_on: str | None = None
    relative_u: float = float("nan")
    common_u: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Return the row as plain values for a file; JSON knows no NaN, so None stands for it."""
        return {
            "joules": joules_of(self.energy),
            "ci95": ends_of(self.energy),
            "active_j": joules_of(self.active),
            "active_ci95": ends_of(self.active),
            "hot_j": self.hot_j,
            "seconds": self.seconds,
            "rounds": self.rounds,
            "quality": self.quality,
            "reason": self.reason,
            "flags": self.flags,
            "measured_on": self.measured_on,
            "relative_u": self.relative_u if np.isfinite(self.relative_u) else None,
            "common_u": self.common_u if np.isfinite(self.common_u) else None,
        }


@dataclass(frozen=True, slots=True)
class ReplayReading:
    """All rows, the two baselines in watts, why measuring ended, and the facts of the meter that read them."""

    rows: dict[Key, ReplayRow]
    context_w: Amount | None = None
    gap_w: Amount | None = None
    stopped: str = ""
    reason: str | None = None
    rounds: int = 0
    instrument: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the measuring."""
        return self.stopped == INTERRUPTED

    @property
    def worst_share(self) -> float:
        """Largest 95 % half-width over its figure; infinite where a measured row has no interval yet."""
        known = [row.energy for row in self.rows.values() if row.energy and row.energy.joules]
        shares = [float("inf") if it.half is None else it.half / it.joules for it in known]
        return max(shares, default=float("inf"))

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values for a file: baselines, why it ended, and each row by `layer, phase`."""

        def told(watts: Amount | None) -> dict[str, Any] | None:
            return None if watts is None else {"watts": watts.joules, "ci95": ends_of(watts)}

        rows = [{"name": name, "phase": str(phase)} | row.facts() for (name, phase), row in self.rows.items()]
        return {
            "stopped": self.stopped,
            "interrupted": self.interrupted,
            "rounds": self.rounds,
            "reason": self.reason,
            "context_w": told(self.context_w),
            "gap_w": told(self.gap_w),
            "instrument": dict(self.instrument),
            "rows": rows,
        }

    def over_all(self, calls: Mapping[Key, int]) -> dict[Key, RowEnergy]:
        """Return joules over all calls of the run, by layer and phase."""
        found = {}
        for key, count in calls.items():
            row = self.rows.get(key)
            if row is None:
                found[key] = RowEnergy(None, Quality.UNAVAILABLE, "it was not captured for replay")
            else:
                found[key] = RowEnergy(row.energy * count if row.energy else None, row.quality, row.reason)
        return found

    def active_j(self, calls: Mapping[Key, int]) -> dict[Key, float]:
        """Return joules above the idle model's over all calls of the run, for the rows that have them."""
        return _times(calls, {key: joules_of(row.active) for key, row in self.rows.items()})

    def hot_j(self, calls: Mapping[Key, int]) -> dict[Key, float]:
        """Return joules with warm weights over all calls of the run, for the rows that have them."""
        return _times(calls, {key: row.hot_j for key, row in self.rows.items()})

    def closure(self, total: Amount, calls: Mapping[Key, int], gap_s: float = 0.0) -> Closure:
        """Close the books of a window in which each row ran `calls[row]` times and nothing ran for `gap_s` seconds."""
        parts, missing = [], []
        for key, count in calls.items():
            row = self.rows.get(key)
            if row is None or row.energy is None:
                missing.append(key)
                continue
            u = row.relative_u if np.isfinite(row.relative_u) else 0.0
            parts.append(RowPart(key, row.energy.joules, u, count, row.common_u, str(key[1])))
        return close(total, parts, self.gap_w, gap_s, missing)


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
    idle model, `gap_w` that between kernels, both in watts. Rows of one phase are fitted together.
    """
    if reason is not None:
        rows = {key: _missing(reason) for key in members}
        return ReplayReading(rows, reason=reason, stopped="there is no sensor")
    own: dict[Key, ReplayRow] = {}
    for phase in Phase:
        group = [c for c in calls if c.key[1] is phase]
        own.update(_phase_rows([c for c in group if c.refusal is None], context_w))
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
    if in_situ_s:
        rows = {key: _compared(row, in_situ_s.get(key)) for key, row in rows.items()}
    return ReplayReading(
        rows=rows,
        context_w=context_w,
        gap_w=gap_w,
        stopped=stopped,
        rounds=max((len(c.cold) for c in calls), default=0),
    )


def _phase_rows(group: Sequence[CallWindows], context: Amount | None) -> dict[Key, ReplayRow]:
    if not group:
        return {}
    cold = _matrix([c.cold for c in group])
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
    seconds = float(np.mean([w.duration_s / n for w, n in good]))
    hot = _matrix([calls.hot])[0]
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
    )


def _matrix(rows: Sequence[Sequence[Counted]]) -> Floats:
    """Joules a call, (layers, rounds); NaN for windows without a figure."""
    most = max((len(r) for r in rows), default=0)
    found = np.full((len(rows), max(1, most)), np.nan)
    for i, row in enumerate(rows):
        for r, (window, count) in enumerate(row):
            if window.energy is not None and count:
                found[i, r] = window.energy.joules / count
    return found


def _active(energy: Amount, seconds: float, context: Amount | None) -> Amount | None:
    """Joules above the resident idle power, `u^2 = u^2(e) + t^2 u^2(P_ctx)`."""
    return energy - context * seconds if context else None


def _lent(row: ReplayRow, name: str) -> ReplayRow:
    text = f"class representative: measured on {name}"
    return replace(row, reason=f"{text}; {row.reason}" if row.reason else text, measured_on=name)


def _compared(row: ReplayRow, in_situ_s: float | None) -> ReplayRow:
    if not in_situ_s or row.seconds is None or abs(row.seconds / in_situ_s - 1) <= TOLERANCE:
        return row
    text = f"a replayed call took {row.seconds / in_situ_s:.2f} of its time in the model"
    return replace(row, flags=(*row.flags, TIME_RATIO), reason=f"{row.reason}; {text}" if row.reason else text)


def _times(calls: Mapping[Key, int], each: Mapping[Key, float | None]) -> dict[Key, float]:
    return {key: joules * count for key, count in calls.items() if (joules := each.get(key)) is not None}


def _missing(reason: str) -> ReplayRow:
    return ReplayRow(None, None, None, None, 0, Quality.UNAVAILABLE, reason)
