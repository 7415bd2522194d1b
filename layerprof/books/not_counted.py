"""What the FLOPs lack: operators that may do matrix work and have no formula, by where they ran, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerprof.readings import ELSEWHERE, NOT_WATCHED, Key, Uncounted, WeightReading, WorkReading
from layerprof.records import LedgerColumn, NotCounted

NAMED = 3
"""Layers that are named with an operator before the rest is only counted."""
UNSEEN = {NOT_WATCHED: ("step", "steps"), ELSEWHERE: ("call on another thread", "calls on other threads")}


def by_operator(work: WorkReading, all_s: float | None = None) -> dict[str, NotCounted]:
    """Return what is not counted of each operator; `all_s` is the time that shares are of, None where unknown."""
    found: dict[str, dict[str, Uncounted]] = {}
    for (place, phase, operator), missed in work.uncounted.items():
        found.setdefault(operator, {})[f"{place} {phase}"] = missed
    return {
        operator: NotCounted(
            calls=sum(missed.calls for missed in places.values()),
            share=_share([missed.seconds for missed in places.values()], all_s),
            places={place: missed.calls for place, missed in places.items()},
        )
        for operator, places in found.items()
    }


def _share(seconds: Sequence[float | None], all_s: float | None) -> float | None:
    known = [one for one in seconds if one is not None]
    # Never above one: the calls were timed in a pass of their own, or with operators watched.
    return min(sum(known) / all_s, 1.0) if all_s and len(known) == len(seconds) else None


def by_row(work: WorkReading | None) -> dict[Key, dict[str, int]]:
    """Return the calls of each operator by layer and phase, those inside what the layer called included."""
    found: dict[Key, dict[str, int]] = {}
    for (name, phase, operator), missed in (work.uncounted_inside or work.uncounted).items() if work else ():
        row = found.setdefault((name, phase), {})
        row[operator] = row.get(operator, 0) + missed.calls
    return found


def warning(column: LedgerColumn) -> str | None:
    """Return what a reader of the FLOPs must know, in one sentence; None where they are whole."""
    if not column.not_counted:
        return None
    state = "not known" if column.total is None else "at least those given"
    return f"FLOPs are {state}: {told(column.not_counted)}."


def weights_warning(weights: WeightReading | None) -> str | None:
    """Return in one sentence which weights do not show their memory, and where; None where all do.

    Their share is of the model's parameters; of some not even their number is known.
    """
    if weights is None or not weights.unseen:
        return None
    parts = []
    for name, places in weights.unseen.items():
        numbers = sum(places.values())
        share = f" ({100 * numbers / weights.parameters:.1f} % of the parameters)" if numbers else ""
        known = f"{numbers:,} numbers{share}" if numbers else "an unknown number"
        parts.append(f"{known} in {name}{_listed([place or 'the model' for place in places])}")
    verb = "does not show its memory" if len(parts) == 1 else "do not show their memory"
    return f"Bytes of weights are at least those given: {'; '.join(parts)}, which {verb}."


def told(missing: Mapping[str, NotCounted]) -> str:
    """Return in words which operators have no formula, how often they ran, where, and for what share of the time.

    Operators that nobody saw have no names: of those it says how often, and where.
    """
    known = {name: missed for name, missed in missing.items() if name not in UNSEEN}
    parts = [
        f"{_many(missed.calls, 'call')} of {name}{_where(missed)}{_time(missed.share)}"
        for name, missed in known.items()
    ]
    said = (
        [f"{'; '.join(parts)} {'has' if [m.calls for m in known.values()] == [1] else 'have'} no formula"]
        if known
        else []
    )
    for name, what in UNSEEN.items():
        if name in missing:
            said.append(f"the operators of {_many(missing[name].calls, *what)}{_where(missing[name])} were not watched")
    return ", and ".join(said)


def _many(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _where(missed: NotCounted) -> str:
    places = list(dict.fromkeys(place.rpartition(" ")[0] or "the model" for place in missed.places))
    return _listed(places)


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    return f" in {', '.join(places[:NAMED])}{more}" if places else ""


def _time(share: float | None) -> str:
    if share is None:
        return ""
    return f" ({'<0.1' if 0 < share < 0.001 else f'{100 * share:.1f}'} % of the time)"
