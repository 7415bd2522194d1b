"""What a run is made of: frozen, versioned, free of torch.

A finished `Run` is what `run.json` holds, name for name: one file, since it is one contract, from its first field to
its last. It is pydantic, so that a file written by hand or by another version is checked when it is read. The readings
that it is made of are in `readings`.

Units are SI and stand in the field's name (`_s` seconds, `_j` joules, `flops`, `bytes`). `None` means "not measured"
and comes with a reason; `0` means "measured, and it was zero".
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT: Final = 3
"""Version of `run.json`; older ones stay readable.

History: 1 = first; 2 = `overhead_ci95`, `ledger.busy_s.not_recorded`; 3 = FLOPs that miss an operator say so:
`layers[].uncounted`, `totals.flops_at_least`, `ledger.flops.not_counted` and `at_least`; rows of shared modules:
`layers[].apart`.
"""

Tower = Literal["vision", "language"]


class Phase(StrEnum):
    """The three parts of answering: encode the image, read the prompt, write the answer."""

    VISION = "vision"
    PREFILL = "prefill"
    DECODE = "decode"


class Quality(StrEnum):
    """How a joule was obtained. Never mixed within one figure."""

    MEASURED = "measured"
    REPLAYED = "replayed"
    ATTRIBUTED = "attributed"
    ESTIMATED = "estimated"
    UNAVAILABLE = "unavailable"


BLOCK_KINDS = ("vision_block", "decoder_layer", "encoder_layer")
"""Kinds that the ledger sums under `layers`; every other kind is the named rest."""


class Record(BaseModel):
    """A frozen, checked part of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Statistic(Record):
    """Median, 95th percentile and a bootstrap 95 % interval of the median; seconds unless said otherwise."""

    median: float
    p95: float
    ci95: tuple[float, float] | None = None
    n: int = 0


class SpanStatistic(Record):
    """Spans of one layer in one phase: the sum over calls, and the distribution of one call, in seconds."""

    total: float
    median: float
    p95: float


class Wer(Record):
    """Word error rates with the counts they come from (../docs/quality.md names each)."""

    corpus_min: float | None
    corpus_first: float | None
    mean_clipped: float | None
    mer: float | None
    substitutions: int
    deletions: int
    insertions: int
    reference_words: int
    hypothesis_words: int
    truncated_share: float
    unscored: int
    ci95: tuple[float, float] | None


class TaskMetric(Record):
    """The dataset's own metric (`vqa_accuracy`, `exact_match`), between 0 and 1; None where it has none."""

    name: str
    value: float | None
    ci95: tuple[float, float] | None = None


class LatencyTotals(Record):
    """End-to-end times of the bare pass, in seconds."""

    per_batch: Statistic
    per_sample: Statistic
    ttft: Statistic | None
    per_output_token: Statistic | None


class Energy(Record):
    """End-to-end joules with how they were obtained. Estimates stand in `Totals.energy_estimate`, never here.

    `active_j` are those above `baseline_w`, the quiet power around the window. `by_phase` comes by difference of
    windows and is measured, too; without it `by_phase_reason` says why. The host's joules are never added to the
    device's.
    """

    joules: float | None
    per_sample: float | None
    per_output_token: float | None
    quality: Quality
    source: str
    reason: str | None = None
    mean_power_w: float | None = None
    ci95: tuple[float, float] | None = None
    active_j: float | None = None
    baseline_w: float | None = None
    by_phase: dict[str, float] | None = None
    by_phase_ci95: dict[str, tuple[float, float]] | None = None
    by_phase_reason: str | None = None
    host_joules: float | None = None
    host_ci95: tuple[float, float] | None = None
    host_source: str | None = None
    host_reason: str | None = None
    flags: tuple[str, ...] = ()


class EnergyEstimate(Record):
    """A modelled figure, its formula and its inputs. Never summed with a measured one."""

    joules: float
    per_sample: float
    formula: str
    inputs: dict[str, Any]


class Totals(Record):
    """The run end to end, from the bare pass.

    `overhead_ratio` is the latency pass over the bare pass, as the median over batches of the paired ratio, with its
    interval; a batch's two walks follow each other at once. `flops_at_least` says that operators without a formula ran:
    every figure of FLOPs is a lower bound then, and None where nothing was counted.
    """

    wer: Wer | None
    task_metric: TaskMetric | None
    latency_s: LatencyTotals
    flops: int | None
    flops_per_sample: float | None
    flops_at_least: bool = False
    flops_useful: int | None = None
    flops_causal: int | None = None
    bytes: int | None = None
    energy: Energy
    energy_estimate: EnergyEstimate | None = None
    peak_memory_bytes: int | None
    overhead_ratio: float | None
    overhead_ci95: tuple[float, float] | None = None
    output_tokens: int | None
    prompt_tokens: int | None
    pad_tokens: int | None
    image_tokens: int | None


class Apart(Record):
    """What of a row is in no other row of its run: what sums of rows take from it. None where the row has none."""

    calls: int = 0
    flops: int | None = None
    bytes: int | None = None
    span_s: float | None = None
    energy_j: float | None = None

    @classmethod
    def of(cls, row: LayerRow) -> Apart:
        """Return all of a row."""
        span = row.span_s.total if row.span_s else None
        return cls(calls=row.calls, flops=row.flops, bytes=row.bytes, span_s=span, energy_j=row.energy_j)


class LayerRow(Record):
    """One layer in one phase, with everything that ran inside its calls.

    Calls are told by what called what, so that a module that stands in the model under several names is in the row of
    each layer that called it. `apart` is what of the row no other row of the run holds; None where that is all of it.

    `span_s` is over the `calls` of the latency pass; `busy_s` is over the `busy_calls` of the traced batches only, and
    `busy_share` is `busy_s / busy_span_s`: on a GPU the latency pass's spans of those calls, on a CPU the time that
    the layer's ranges took within the trace itself. None where CUDA graphs ran inside the layer.

    `uncounted` are the calls of operators inside the layer that may do matrix work and have no formula. Where there are
    any, `flops` are at least what they say, None where nothing was counted; what needs all of them has no figure.

    Joules are over all calls. Beside replayed ones stand `energy_active_j` (above the power of the resident, idle
    model), `energy_hot_j` (weights still in the cache) and `energy_reconciled_j` (scaled so that no residual is left).
    """

    name: str
    tower: Tower
    kind: str
    index: int
    phase: Phase
    calls: int
    flops: int | None
    flops_useful: int | None = None
    flops_causal: int | None = None
    bytes: int | None
    bytes_weights: int | None = None
    bytes_activations: int | None = None
    bytes_kv: int | None = None
    span_s: SpanStatistic | None
    busy_s: float | None
    busy_calls: int | None = None
    busy_span_s: float | None = None
    busy_share: float | None = None
    roof_share: float | None = None
    top_kernels: tuple[tuple[str, float], ...] = ()
    energy_j: float | None
    energy_ci95: tuple[float, float] | None
    energy_quality: Quality
    energy_reason: str | None
    energy_source: str | None = None
    energy_active_j: float | None = None
    energy_hot_j: float | None = None
    energy_reconciled_j: float | None = None
    energy_estimate_j: float | None = None
    uncounted: dict[str, int] = Field(default_factory=dict)
    apart: Apart | None = None

    @property
    def at_least(self) -> bool:
        """Whether the FLOPs are a lower bound."""
        return bool(self.uncounted)


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
    """The books of the four quantities."""

    flops: LedgerColumn
    span_s: LedgerColumn
    busy_s: LedgerColumn
    energy_j: LedgerColumn


class Run(Record):
    """Everything one `layerprof profile` produced; `run.json` is its dump."""

    format: Literal[1, 2, 3] = FORMAT
    created: str
    status: Literal["done", "interrupted", "failed"] = "done"
    settings: dict[str, Any]
    environment: dict[str, Any]
    model: dict[str, Any]
    dataset: dict[str, Any]
    samples: int
    totals: Totals
    layers: tuple[LayerRow, ...]
    ledger: Ledger
    energy_closure: EnergyClosure | None = None
    passes: dict[str, Any] = Field(default_factory=dict)
    uncounted_ops: dict[str, int] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)


class Sample(Record):
    """One line of `samples.jsonl`: what was asked, what was answered, and how it was scored."""

    id: str
    batch: int
    prompt: str
    references: tuple[str, ...]
    answer: str
    answer_tokens: tuple[int, ...]
    truncated: bool
    prompt_tokens: int
    image_tokens: int
    pad_tokens: int
    question_cut: int = 0
    wer: float | None = None
    metric: float | None = None
