"""What replay found: joules a call per layer and phase, in its loop and in the model, with intervals and books."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from layerprof.energy.amount import NORMAL_95, TOLERANCE, Amount, ends_of, joules_of
from layerprof.energy.closure import Closure, RowPart, close
from layerprof.energy.flags import CLOCK_DRIFT, THROTTLED
from layerprof.energy.place import Place, in_place
from layerprof.energy.share import RowEnergy
from layerprof.readings import Key
from layerprof.records import Quality

TIME_RATIO = "time unlike in the model"
INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """Joules a call of one layer in one phase. `energy` is None exactly where `quality` is `unavailable`.

    `energy` and `seconds` are of a replayed call; `active` is above the power of the resident, idle model (`energy -
    P_ctx x seconds`). `place` is the call in the model, None where its time there or the power of a waiting device is
    not known. `hot_j`, `hot_s` and `hot_place` are the same with warm weights. `host_bound` says that the device waited
    in every replay. `measured_on` is the layer whose calls were measured, another one of the same kind under a small
    budget. `relative_u` and `common_u` are for sums, see `closure.RowPart`.
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
    hot_s: float | None = None
    host_bound: bool | None = None
    place: Place | None = None
    hot_place: Place | None = None

    @property
    def in_model(self) -> Amount | None:
        """Joules of a call where it stands in the model; of a replayed one where no more is known."""
        return self.place.energy if self.place else self.energy

    @property
    def hot_in_model_j(self) -> float | None:
        """The same with warm weights."""
        return self.hot_place.energy.joules if self.hot_place else self.hot_j

    def facts(self) -> dict[str, Any]:
        """Return the row as plain values for a file; JSON knows no NaN, so None stands for it."""
        return {
            "joules": joules_of(self.energy),
            "ci95": ends_of(self.energy),
            "active_j": joules_of(self.active),
            "active_ci95": ends_of(self.active),
            "hot_j": self.hot_j,
            "seconds": self.seconds,
            "hot_seconds": self.hot_s,
            "host_bound": self.host_bound,
            "in_model": None
            if self.place is None
            else {
                "seconds": self.place.seconds,
                "joules": self.place.energy.joules,
                "ci95": ends_of(self.place.energy),
                "doubt_j": self.place.doubt_j,
            },
            "rounds": self.rounds,
            "quality": self.quality,
            "reason": self.reason,
            "flags": self.flags,
            "measured_on": self.measured_on,
            "relative_u": self.relative_u if isfinite(self.relative_u) else None,
            "common_u": self.common_u if isfinite(self.common_u) else None,
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

    def placed(self, in_situ_s: Mapping[Key, float]) -> ReplayReading:
        """Return the reading with each call where it stands in the model, where it takes `in_situ_s` seconds."""
        rows = {key: _placed(row, in_situ_s.get(key), self.gap_w) for key, row in self.rows.items()}
        return replace(self, rows=rows)

    def over_all(self, calls: Mapping[Key, int]) -> dict[Key, RowEnergy]:
        """Return joules in the model over all calls of the run, by layer and phase."""
        found = {}
        for key, count in calls.items():
            row = self.rows.get(key)
            if row is None:
                found[key] = RowEnergy(None, Quality.UNAVAILABLE, "it was not captured for replay")
            else:
                found[key] = RowEnergy(row.in_model * count if row.in_model else None, row.quality, row.reason)
        return found

    def active_j(self, calls: Mapping[Key, int]) -> dict[Key, float]:
        """Return joules above the idle model's over all calls of the run, for the rows that have them."""
        return _times(calls, {key: joules_of(row.active) for key, row in self.rows.items()})

    def hot_j(self, calls: Mapping[Key, int]) -> dict[Key, float]:
        """Return joules with warm weights over all calls of the run, for the rows that have them."""
        return _times(calls, {key: row.hot_in_model_j for key, row in self.rows.items()})

    def closure(self, total: Amount, calls: Mapping[Key, int], gap_s: float = 0.0) -> Closure:
        """Close the books of a window in which each row ran `calls[row]` times and nothing ran for `gap_s` seconds."""
        parts, missing = [], []
        for key, count in calls.items():
            row = self.rows.get(key)
            if row is None or row.energy is None:
                missing.append(key)
            else:
                parts.append(_part(key, row, count))
        return close(total, parts, self.gap_w, gap_s, missing)


def _part(key: Key, row: ReplayRow, calls: int) -> RowPart:
    """Return the row's part of the books; its relative uncertainties are those of the replayed joules."""
    assert row.energy is not None
    assert row.in_model is not None
    joules = row.in_model.joules
    of_it = row.energy.joules / joules if joules else 0.0
    u = row.relative_u if isfinite(row.relative_u) else 0.0
    doubt_j, shift_s = (row.place.doubt_j, row.place.shift_s) if row.place else (0.0, 0.0)
    return RowPart(key, joules, u * of_it, calls, row.common_u * of_it, str(key[1]), doubt_j, shift_s)


def _placed(row: ReplayRow, place_s: float | None, waiting: Amount | None) -> ReplayRow:
    """Return the row with its call in the model, flagged where that takes another time there."""
    if not place_s or row.energy is None or not row.seconds:
        return row
    found, told = row, ""
    if waiting is not None:
        # A device that waits in the loop, clocks and limits alone, does its work in less than either time.
        sure = bool(row.host_bound) and not {THROTTLED, CLOCK_DRIFT} & {*row.flags}
        place = in_place(row.energy, row.seconds, place_s, waiting, sure=sure)
        warm = row.hot_j is not None and row.hot_s
        hot = in_place(Amount(row.hot_j or 0.0), row.hot_s or 0.0, place_s, waiting) if warm else None
        found = replace(row, place=place, hot_place=hot)
        told = f"; the difference is waiting at {waiting.joules:.3g} W"
        if place.doubt_j:
            share = NORMAL_95 * place.doubt_j / place.energy.joules
            told += f", and that it may be work is in the interval ({share:.1%} of the joules)"
    ratio = row.seconds / place_s
    if abs(ratio - 1) <= TOLERANCE:
        return found
    text = f"a replayed call took {ratio:.2f} of its time in the model{told}"
    return replace(found, flags=(*row.flags, TIME_RATIO), reason=f"{row.reason}; {text}" if row.reason else text)


def _times(calls: Mapping[Key, int], each: Mapping[Key, float | None]) -> dict[Key, float]:
    return {key: joules * count for key, count in calls.items() if (joules := each.get(key)) is not None}
