"""A run from its first field to its last: what `run.json` holds, name for name."""

from __future__ import annotations

import warnings
from typing import Any, Final, Literal

from pydantic import Field

from layerprof.records.ledgers import EnergyClosure, Ledger
from layerprof.records.terms import Phase, Quality, Record, Tower

FORMAT: Final = 5
"""Version of `run.json`; older ones stay readable.

History: 1 = first; 2 = `overhead_ci95`, `ledger.busy_s.not_recorded`; 3 = FLOPs that miss an operator say so:
`layers[].uncounted`, `totals.flops_at_least`, `ledger.flops.not_counted` and `at_least`; rows of shared modules:
`layers[].apart`; 4 = the request (`totals.request_s`, `ledger.request_s`), `instrumented`, tokens and memory of layers,
`ledger.memory_bytes`, throughput, joules per correct answer, `samples.jsonl` with keys; 5 = what was fed
(`totals.fed`, `fed` of samples), formats of weights (`layers[].weights_dtype`, `model.quantization`), each tower's
attention (`model.attention`).
"""


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


with warnings.catch_warnings():  # `copy` is what it is called; a deprecated method of pydantic's has that name, too
    warnings.filterwarnings("ignore", message='Field name "copy"')

    class RequestTotals(Record):
        """Parts of a batch's way from file to answer, in seconds a batch of the bare pass.

        `read` decodes the images, `process` makes tensors of images and prompts, `copy` brings them to the device
        (timed there on a GPU), `generate` answers.
        """

        read: Statistic
        process: Statistic
        copy: Statistic  # type: ignore[assignment]  # see above
        generate: Statistic


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
    """End-to-end times of the bare pass, in seconds, from the call of `generate()` on.

    `ttft_request` is the time to the first token from the image file on: `read`, `process`, `copy`, then `ttft`.
    """

    per_batch: Statistic
    per_sample: Statistic
    ttft: Statistic | None
    per_output_token: Statistic | None
    ttft_request: Statistic | None = None


class Energy(Record):
    """End-to-end joules with how they were obtained. Estimates stand in `Totals.energy_estimate`, never here.

    `active_j` are those above `baseline_w`, the quiet power around the window. `by_phase` comes by difference of
    windows and is measured, too; without it `by_phase_reason` says why. The host's joules are never added to the
    device's. All are of the instrumented samples; `per_correct_answer` is joules over answers that are right (the sum
    of the task metric) of those samples, None with its reason where there is no energy or no such metric.
    """

    joules: float | None
    per_sample: float | None
    per_output_token: float | None
    per_correct_answer: float | None = None
    per_correct_answer_ci95: tuple[float, float] | None = None
    per_correct_answer_reason: str | None = None
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


class Range(Record):
    """Least, median and most of some figure."""

    least: int
    median: float
    most: int


class FedTotals(Record):
    """What the model was given beside text, over all samples.

    `images` are single pictures, `videos` those of `frames` frames together, as the processor handed them on: Qwen's
    repeats the last one to fill a temporal patch. `without` counts samples that had neither. `width` and `height` are
    pixels as the processor handed them on, `tokens` what one image or video became in the prompt (None where the family
    does not tell).
    """

    images: int
    videos: int = 0
    frames: int = 0
    without: int = 0
    width: Range | None = None
    height: Range | None = None
    tokens: Range | None = None


class Totals(Record):
    """The run end to end, from the bare pass.

    `overhead_ratio` is the latency pass over the bare pass, as the median over batches of the paired ratio, with its
    interval; a batch's two walks follow each other at once. `flops_at_least` says that operators without a formula ran:
    every figure of FLOPs is a lower bound then, and None where nothing was counted. `bytes_at_least` says the same of
    bytes: weights were read that do not show their memory.

    Rates of answers, times, throughput, peak memory and tokens are of all samples; FLOPs, bytes and energy of the
    instrumented ones. `samples_per_s` is samples over the wall time of the whole request, `output_tokens_per_s` written
    tokens over that of `generate()`. `accepted_per_step` is how many tokens a row kept of a decode step on average,
    where a step may give several (speculative decoding); None elsewhere.
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
    bytes_at_least: bool = False
    energy: Energy
    energy_estimate: EnergyEstimate | None = None
    peak_memory_bytes: int | None
    overhead_ratio: float | None
    overhead_ci95: tuple[float, float] | None = None
    request_s: RequestTotals | None = None
    samples_per_s: float | None = None
    output_tokens_per_s: float | None = None
    accepted_per_step: float | None = None
    output_tokens: int | None
    prompt_tokens: int | None
    pad_tokens: int | None
    image_tokens: int | None
    fed: FedTotals | None = None


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

    `tokens_per_call` are positions that a call is given, in all its rows, padding counted (`patch_embed`: gives);
    `kv_per_call` those whose keys and values its attention may read, cached and new ones, an encoder's beside a
    decoder's own, in all rows. Means over calls; None where a layer has none: no features (rotary), no attention.

    Rows of the phase `mixed` say what entered in their steps, over all of them: `mixed_prefill_tokens` positions of
    prompts and `mixed_decode_tokens` of answers. Other rows have none.

    `memory_peak_bytes` is the most that one call held at once beyond what was there when it began, `memory_kept_bytes`
    what a call left allocated when it returned, as a mean over calls, and `memory_kept_kv_bytes` the part of that which
    lies in the KV cache. `weights_bytes` are those of the layer that lie in memory, whatever the phase.
    `weights_dtype` is the format that its weights are stored in, the one of most bytes first (`int8 + fp16`).
    `unseen_weights` are numbers in weights of classes that do not show their memory, by class: where there are any,
    bytes are at least what they say.

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
    tokens_per_call: float | None = None
    kv_per_call: float | None = None
    mixed_prefill_tokens: int | None = None
    mixed_decode_tokens: int | None = None
    memory_peak_bytes: int | None = None
    memory_kept_bytes: int | None = None
    memory_kept_kv_bytes: int | None = None
    weights_bytes: int | None = None
    weights_dtype: str | None = None
    unseen_weights: dict[str, int] = Field(default_factory=dict)
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

    @property
    def bytes_at_least(self) -> bool:
        """Whether the bytes are a lower bound."""
        return bool(self.unseen_weights)


class Run(Record):
    """Everything one `layerprof profile` produced; `run.json` is its dump.

    `samples` were answered; `instrumented` of them, the first ones, the instruments walked (None in older runs: all).
    """

    format: Literal[1, 2, 3, 4, 5] = FORMAT
    created: str
    status: Literal["done", "interrupted", "failed"] = "done"
    settings: dict[str, Any]
    environment: dict[str, Any]
    model: dict[str, Any]
    dataset: dict[str, Any]
    samples: int
    instrumented: int | None = None
    totals: Totals
    layers: tuple[LayerRow, ...]
    ledger: Ledger
    energy_closure: EnergyClosure | None = None
    passes: dict[str, Any] = Field(default_factory=dict)
    uncounted_ops: dict[str, int] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def walked(self) -> int:
        """How many samples the instruments walked."""
        return self.samples if self.instrumented is None else self.instrumented


class Fed(Record):
    """An image (`frames` None) or a video, as the processor handed it on: pixels, and the tokens that stand for it.

    `frames` counts those that fill up a temporal patch, too: of a clip of 5, two a patch, 6.
    """

    width: int
    height: int
    frames: int | None = None
    tokens: int | None = None


class Sample(Record):
    """One line of `samples.jsonl`: what was asked, what was answered, and how it was scored.

    `key` is a hash of the question as it stands in the dataset, its pictures' pixels and the references: what makes it
    the same sample in another run. None in older runs.
    """

    id: str
    key: str | None = None
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
    fed: tuple[Fed, ...] = ()
    wer: float | None = None
    metric: float | None = None
