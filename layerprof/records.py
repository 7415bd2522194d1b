"""What a run is made of: frozen, versioned, free of torch.

A finished `Run` is what `run.json` holds, name for name. Raw readings that hooks hand over are plain
frozen dataclasses (there are many of them); what is stored is pydantic, so that a file written by hand or
by another version is checked when it is read. One file, since it is one contract: `run.json` from its first
field to its last, and the readings that it is made of.

Units are SI and stand in the field's name (`_s` seconds, `_j` joules, `flops`, `bytes`). `None` means "not measured"
and comes with a reason; `0` means "measured, and it was zero".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT: Final = 2
"""Version of `run.json`; older ones stay readable.

History: 1 = first; 2 = `overhead_ci95`, `ledger.busy_s.not_recorded`.
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


# --- what is found and read in a live model --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layer:
    """A unit that gets a row. `name` is its key in `named_modules()` of the loaded model.

    `kind` is `vision_block`, `decoder_layer`, `encoder_layer` (of a language tower that has an encoder), one of the
    named rest (`patch_embed`, `merger`, `embed_tokens`, `norm`, `lm_head`, ...) or, for a submodule that a selector
    asked for, `module`. `index` counts within kind and tower from 0.
    """

    name: str
    tower: Tower
    kind: str
    index: int


@dataclass(frozen=True, slots=True)
class Span:
    """One call of one layer: seconds since the start of its batch's window, idle gaps included.

    `self_s` leaves out the time inside other located layers that it called (nested selections).
    """

    layer: str
    phase: Phase
    batch: int
    step: int
    start_s: float
    end_s: float
    self_s: float


@dataclass(frozen=True, slots=True)
class SpanReading:
    """What the latency pass gives: every call's span, each batch's window on the host clock, and named gaps.

    `windows_s[b]` is the host wall time of batch b's `generate()`, device synchronised. `gaps_s` is the time inside
    the windows that no layer's span covers, by where it fell (`before the first layer`, `within decode`, `between
    decode steps`, ...).
    """

    spans: tuple[Span, ...]
    windows_s: tuple[float, ...]
    gaps_s: dict[str, float]
    clock: str
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs and bytes of a set of calls; adds up with `+` and `sum(..., Work())`.

    `flops` is executed work, 2 per multiply-accumulate, causal attention not halved, padding counted.
    `flops_useful` counts real tokens only; `flops_causal` halves what a causal mask hides. `bytes_*` is the least
    traffic: weights once a call, activations in and out of the layer, KV cache read and written.
    """

    calls: int = 0
    flops: int = 0
    flops_useful: int = 0
    flops_causal: int = 0
    bytes_weights: int = 0
    bytes_activations: int = 0
    bytes_kv: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self.astuple(), other.astuple(), strict=True)))

    def __radd__(self, other: Literal[0]) -> Work:
        return self

    def astuple(self) -> tuple[int, ...]:
        """Return the fields in order."""
        return (
            self.calls,
            self.flops,
            self.flops_useful,
            self.flops_causal,
            self.bytes_weights,
            self.bytes_activations,
            self.bytes_kv,
        )

    @property
    def bytes(self) -> int:
        """All traffic: weights, activations and KV cache."""
        return self.bytes_weights + self.bytes_activations + self.bytes_kv


@dataclass(frozen=True, slots=True)
class WorkReading:
    """What the flops pass gives.

    `layers[(name, phase)]` is the work inside each located layer (inside nested ones: of the innermost);
    `outside[(module path, phase)]` is what ran under no located layer; `total_flops` is counted on its own, op by
    op, without regard to layers. `uncounted[op]` is how often an executed op that may do matrix work has no
    formula. `phase_flops` splits the total.
    """

    layers: dict[tuple[str, Phase], Work]
    outside: dict[tuple[str, Phase], Work]
    total_flops: int
    uncounted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lost:
    """Launches whose work the profiler did not record: how many `of` all, and where they were made.

    What they ran is in no figure. `may_be_s` is what it comes to at the mean of the recorded launches of the same
    layer, None where nothing like them was recorded. `places[(name, phase)]` counts those inside a layer.
    """

    launches: int = 0
    of: int = 0
    may_be_s: float | None = 0.0
    places: dict[tuple[str, Phase], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelReading:
    """What the trace pass gives: busy seconds by innermost layer range, and the buckets that are no layer's.

    On a CPU `busy` is the time inside operators instead of GPU kernels; `device` says which. `buckets` holds
    `outside layers`, `no launch seen` and `graph launch`; together with `busy` they add up to `total_s`. `top`
    names the heaviest kernels of each layer. `calls[(name, phase)]` is how many calls the busy seconds belong to: the
    trace covers the first `batches` batches only. `host_s` is the time on the launching thread with that range
    innermost, so on a CPU `busy_s <= host_s`. `graph_s` is the work of CUDA graphs launched inside the range, which is
    in the bucket `graph launch` and not in `busy_s`. `lost` is what the profiler did not record.
    """

    busy_s: dict[tuple[str, Phase], float]
    calls: dict[tuple[str, Phase], int]
    buckets_s: dict[str, float]
    total_s: float
    top: dict[tuple[str, Phase], tuple[tuple[str, float], ...]]
    device: Literal["cuda", "cpu"]
    batches: int
    host_s: dict[tuple[str, Phase], float] = field(default_factory=dict)
    graph_s: dict[tuple[str, Phase], float] = field(default_factory=dict)
    lost: Lost = field(default_factory=Lost)


# --- what is stored ---------------------------------------------------------------------------------------------


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
    interval; a batch's two walks follow each other at once.
    """

    wer: Wer | None
    task_metric: TaskMetric | None
    latency_s: LatencyTotals
    flops: int | None
    flops_per_sample: float | None
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


class LayerRow(Record):
    """One layer in one phase, with everything inside it.

    `span_s` is over the `calls` of the latency pass; `busy_s` is over the `busy_calls` of the traced batches only, and
    `busy_share` is `busy_s / busy_span_s`: on a GPU the latency pass's spans of those calls, on a CPU the time that
    the layer's ranges took within the trace itself. None where CUDA graphs ran inside the layer.

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
    """

    layers: float | int | None
    rest: dict[str, float | int]
    residual: float | int | None
    total: float | int | None
    reason: str | None = None
    quality: Quality | None = None
    source: str | None = None
    not_recorded: NotRecorded | None = None


class EnergyClosure(Record):
    """Whether replayed energy closes: `parts_j + gap_j + residual_j = total_j`, judged by `rule`.

    `parts_j` are joules a call times calls of the `rows` with a figure, `gap_j` the time in no layer at the power of a
    waiting device. `missing` are the rows without a figure (what they took is in the residual), `without_interval`
    counts those that were measured once, whose doubt the residual's interval does not hold. `stopped` says why
    measuring ended.
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


class Ledger(Record):
    """The books of the four quantities."""

    flops: LedgerColumn
    span_s: LedgerColumn
    busy_s: LedgerColumn
    energy_j: LedgerColumn


class Run(Record):
    """Everything one `layerprof profile` produced; `run.json` is its dump."""

    format: Literal[1, 2] = FORMAT
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
