"""The books of a run: one column a quantity, what each lacks, and whether replayed energy closes."""

from __future__ import annotations

import warnings

from pydantic import Field

from layerprof.records.terms import Phase, Quality, Record

with warnings.catch_warnings():  # `copy` is what it is called; a deprecated method of pydantic's has that name, too
    warnings.filterwarnings("ignore", message='Field name "copy"')

    class RequestColumn(Record):
        """The books of the request: `read + process + copy + generate + residual = total`, in seconds.

        `total` is the wall time of the bare walk, from where a batch's turn begins to its answer, all batches together;
        the hooked walk in between is not in it. All None where nothing was timed, with the reason.
        """

        read: float | None
        process: float | None
        copy: float | None  # type: ignore[assignment]  # see above
        generate: float | None
        residual: float | None
        total: float | None
        reason: str | None = None


class NotCounted(Record):
    """Calls of an operator that may do matrix work and has no formula: what they did is in no figure of FLOPs.

    `share` is their share of the time; None where it is not known, since a GPU works behind the host's back. `places`
    counts them by `name phase` of the layer, or of the module that ran them outside of layers.
    """

    calls: int
    share: float | None = None
    places: dict[str, int] = Field(default_factory=dict)


class NotRecorded(Record):
    """What the profiler lost: `launches` of the `of` that were made. It is in no figure of the books.

    `may_be` is what they come to, in the quantity's unit, at the mean of recorded launches like them; None where there
    are none. `places` counts those inside a layer, by `name phase`.
    """

    launches: int
    of: int
    may_be: float | None
    places: dict[str, int] = Field(default_factory=dict)


class LedgerColumn(Record):
    """One quantity's books: `layers + sum(rest) + residual = total`, in the quantity's SI unit.

    `quality` and `source` label the joules of the layers and the rest; other quantities have none. `not_recorded` is
    what the total lacks; None where nothing is known to be missing.

    `not_counted` are the operators that FLOPs lack. `at_least` names the lines that are lower bounds: `layers` and
    `total`, names of the rest. One of which nothing was counted is None, or not in the rest; the residual is then of
    what was counted.
    """

    layers: float | int | None
    rest: dict[str, float | int]
    residual: float | int | None
    total: float | int | None
    reason: str | None = None
    quality: Quality | None = None
    source: str | None = None
    not_recorded: NotRecorded | None = None
    not_counted: dict[str, NotCounted] = Field(default_factory=dict)
    at_least: tuple[str, ...] = ()


class EnergyClosure(Record):
    """Whether replayed energy closes: `parts_j + gap_j + residual_j = total_j`, judged by `rule`.

    `parts_j` are joules a call times calls of the `rows` with a figure, `gap_j` the time in no layer at the power of a
    waiting device, `waiting_w`. `missing` are the rows without a figure (what they took is in the residual),
    `without_interval` counts those that were measured once, whose doubt the residual's interval does not hold.
    `stopped` says why measuring ended.

    `pace` is the length of the window over that of the latency pass, by which all times in the model are scaled. Of
    `unlike` rows a replayed call took another time than that: from `unlike_ratios[0]` to `[1]` of it.
    """

    quality: Quality
    source: str
    total_j: float
    total_ci95: tuple[float, float]
    parts_j: float
    gap_j: float
    residual_j: float
    residual_ci95: tuple[float, float]
    tolerance: float
    passed: bool
    rule: str
    rows: int
    missing: tuple[tuple[str, Phase], ...] = ()
    without_interval: int = 0
    stopped: str = ""
    pace: float | None = None
    unlike: int = 0
    unlike_ratios: tuple[float, float] | None = None
    waiting_w: float | None = None


class Ledger(Record):
    """The books of the quantities; those of the request and of memory only where the run has them.

    `memory_bytes` is what was held at the moment of the peak: weights and what calls had allocated by layer, the rest
    by name, against the peak of the whole walk.
    """

    flops: LedgerColumn
    span_s: LedgerColumn
    busy_s: LedgerColumn
    energy_j: LedgerColumn
    request_s: RequestColumn | None = None
    memory_bytes: LedgerColumn | None = None
