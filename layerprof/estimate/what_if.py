"""What if layers of a measured run took less time: Amdahl's law over their spans, with rooflines for other weights.

Nothing here was measured after the change: every figure is a bound or stands on an assumption that it names. Per row,
with `S` its measured span, `B` the part of it in which the device (on a CPU: an operator) was busy, `b` and `b'` the
bytes that it moves at the least now and then, `R` and `R'` its rooflines (Williams, Waterman and Patterson, CACM 2009):

- at most `min(B (1 - b'/b), B - R')` goes: as if all of the busy time were spent moving bytes, at the pace at which
  they were moved, and none of it beyond the roof. What a layer waits for its host (`S - B`) stays, since the weights'
  format does not change it. A layer that was faster than its roof (`B < R`: its bytes lay in a cache) is not bounded by
  it: then only the first of the two holds.
- `B (1 - R'/R)` goes where the layer keeps the share of its roof that it reached.

Where the device's peaks are not known there is no roof, and only the first part of the first line holds. Over all, by
Amdahl (AFIPS 1967): what goes of the end-to-end time is a share `p` of it, and it is at most `1 / (1 - p)` times as
fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Literal

from layerprof.errors import RequestError
from layerprof.estimate.formats import KEPT, LEAST_BITS
from layerprof.layers.row_selector import select_rows
from layerprof.machine.gpus import gpu_by_device_name
from layerprof.records import LayerRow, Phase, Record, Run, Tower

SKIPPED, ALREADY = "skipped", "already"
"""Why rows stay as they are: in whole, and the end of a sentence."""
ITEMSIZE = {"fp16": 2, "bf16": 2, "fp32": 4}


class WhatIfRow(Record):
    """One row of the run: what it took, and how much of that may go. Seconds and bytes over all its calls.

    `span_s` is the part of the row's span that no other row of the selection holds. `least_s` and `least_after_s` are
    rooflines, None where the device's peaks or the row's work are not known. `at_most_s` is a bound, `alike_s` stands
    on the assumption that the layer keeps its share of the roof. `reason` says why there is no figure, or why it is 0.
    """

    name: str
    tower: Tower
    kind: str
    index: int
    phase: Phase
    span_s: float | None
    busy_share: float | None = None
    bytes_weights: int | None = None
    bytes_weights_after: float | None = None
    least_s: float | None = None
    least_after_s: float | None = None
    at_most_s: float | None = None
    alike_s: float | None = None
    reason: str | None = None


class WhatIfSum(Record):
    """Sums over rows. Shares are of `generate()` (of the windows of the latency pass) and of the whole request.

    `at_most_speedup` and `request_speedup` are the factors by which the two are faster at the best.
    """

    rows: int
    span_s: float
    at_most_s: float
    alike_s: float | None
    span_share: float
    at_most_share: float
    alike_share: float | None
    at_most_speedup: float | None
    request_share: float | None = None
    request_speedup: float | None = None


class WhatIf(Record):
    """The answer: bounds, never measurements. `assumed` are the assumptions in words."""

    format: Literal[1] = 1
    bound: Literal[True] = True
    run: dict[str, Any]
    asked: dict[str, Any]
    generate_s: float
    request_s: float | None
    totals: WhatIfSum
    phases: dict[Phase, WhatIfSum]
    layers: tuple[WhatIfRow, ...]
    without_figure: tuple[str, ...]
    assumed: tuple[str, ...]

    def to_json(self) -> str:
        """Return the answer as a JSON document."""
        return self.model_dump_json(indent=2)


@dataclass(frozen=True, slots=True)
class Change:
    """What is asked: other weights (`quantization`, but for the rows that `skip` takes), a factor, or neither.

    With neither, the layers are taken to cost nothing.
    """

    quantization: str | None = None
    skip: str | None = None
    speedup: float | None = None

    def __post_init__(self) -> None:
        if self.quantization is not None and self.quantization not in LEAST_BITS:
            raise RequestError(
                f"There is no format '{self.quantization}' of weights.", f"Use one of {', '.join(LEAST_BITS)}."
            )
        if self.quantization and self.speedup:
            raise RequestError(
                "--quantization and --speedup are two questions.", "Ask one of them; each answer is a bound of its own."
            )
        if self.skip is not None and not self.quantization:
            raise RequestError(
                "--quantization-skip leaves layers out of a quantization, and none is asked for.",
                f"Give --quantization with it: {', '.join(LEAST_BITS)}.",
            )
        if self.speedup is not None and not 1 < self.speedup < float("inf"):
            raise RequestError(
                f"--speedup is {self.speedup:g}, and layers are asked to be faster by it.", "Give a factor above 1."
            )


@dataclass(frozen=True, slots=True)
class _Roofs:
    flops_s: float | None
    bytes_s: float | None

    def seconds(self, flops: int | None, moved: float) -> float | None:
        if self.flops_s is None or self.bytes_s is None or flops is None:
            return None
        return max(flops / self.flops_s, moved / self.bytes_s)


def what_if(run: Run, layers: str, change: Change) -> WhatIf:
    """Return how much of a run's time could go if the layers that a selector takes were changed.

    Raises RequestError where the run has no spans, or nothing that the change would touch; SelectorError for the
    selector.
    """
    whole = run.ledger.span_s.total
    if not whole:
        why = run.ledger.span_s.reason or "the latency pass did not run"
        raise RequestError(f"The run has no times of its layers: {why}.", "Profile again, and give that run.")
    chosen = select_rows(run.layers, layers)
    spared = {(row.name, row.phase) for row in select_rows(chosen, change.skip)} if change.skip else set()
    roofs, itemsize = _roofs(run), ITEMSIZE.get(str(run.model.get("dtype")))
    answers = []
    for row in chosen:
        part = _counted(row, chosen)
        if part:
            kept = (row.name, row.phase) in spared
            answers.append(_answer(row, part, change, roofs, itemsize, kept))
    if change.quantization and not any(it.bytes_weights_after for it in answers):
        raise _changes_nothing(change, layers, answers)
    request = run.ledger.request_s
    of_request = request.generate / request.total if request and request.generate and request.total else None
    sums = {phase: of for phase in Phase if (of := [it for it in answers if it.phase is phase])}
    return WhatIf(
        run={name: run.model.get(name) for name in ("name", "dtype")}
        | {"device": run.environment.get("device_name"), "dataset": run.dataset.get("name"), "created": run.created}
        | {"samples": run.walked},
        asked={"layers": layers, **{n: getattr(change, n) for n in ("quantization", "skip", "speedup")}},
        generate_s=whole,
        request_s=request.total if request else None,
        totals=_sum(answers, whole, of_request),
        phases={phase: _sum(of, whole, of_request) for phase, of in sums.items()},
        layers=tuple(answers),
        without_figure=tuple(f"{it.name} {it.phase}" for it in answers if it.at_most_s is None),
        assumed=tuple(_assumed(change, roofs, chosen)),
    )


def _changes_nothing(change: Change, layers: str, answers: Sequence[WhatIfRow]) -> RequestError:
    reasons = list(dict.fromkeys(it.reason for it in answers if it.reason))
    remedy = "Select layers with matrices, such as --layers language."
    if any(it.endswith(ALREADY) for it in reasons):
        remedy = "Give a run of the model as it is, without --quantization."
    elif SKIPPED in reasons:
        remedy = "Let --quantization-skip take fewer layers."
    return RequestError(
        f"{change.quantization} changes none of the layers that {layers!r} takes: {'; '.join(reasons)}.", remedy
    )


def _roofs(run: Run) -> _Roofs:
    """Return the peaks that the run names, else those of its device by name."""
    peaks = run.environment.get("peaks")
    if peaks:
        return _Roofs(peaks.get("flops_per_s"), peaks.get("bytes_per_s"))
    on_gpu = str(run.environment.get("device", "")) != "cpu"
    gpu = gpu_by_device_name(run.environment.get("device_name")) if on_gpu else None
    return _Roofs(gpu.peak(str(run.model.get("dtype"))), gpu.bandwidth_bytes_s) if gpu else _Roofs(None, None)


def _counted(row: LayerRow, chosen: Sequence[LayerRow]) -> float:
    """Return the part of a row's span that no other chosen row holds, as a share of it."""
    others = [it for it in chosen if it.phase is row.phase and it.name != row.name]
    if any(not it.name or row.name.startswith(it.name + ".") for it in others):
        return 0.0
    shared = row.apart is not None and row.kind != "module" and any(it.kind != "module" for it in others)
    if row.apart is None or not shared or row.span_s is None or not row.span_s.total:
        return 1.0
    return (row.apart.span_s or 0.0) / row.span_s.total


def _answer(row: LayerRow, part: float, change: Change, roofs: _Roofs, itemsize: int | None, kept: bool) -> WhatIfRow:
    span = row.span_s.total * part if row.span_s else None
    named: dict[str, Any] = {name: getattr(row, name) for name in ("name", "tower", "kind", "index", "phase")}
    named |= {"span_s": span, "busy_share": row.busy_share}
    if span is None:
        return WhatIfRow(**named, reason="its span was not measured")
    if change.quantization is None:
        return WhatIfRow(**named, at_most_s=span * (1 - (1 / change.speedup if change.speedup else 0)))
    least = roofs.seconds(row.flops, (row.bytes or 0) * part) if row.bytes is not None else None
    named |= {"bytes_weights": row.bytes_weights, "least_s": least}
    itemsize = ITEMSIZE.get((row.weights_dtype or "").split(" + ")[0], itemsize)  # where it differs from the model's
    untouched = SKIPPED if kept else _untouched(row, itemsize)
    if untouched:
        alike = None if least is None else 0.0
        return WhatIfRow(**named, at_most_s=0.0, alike_s=alike, least_after_s=least, reason=untouched)
    if row.bytes is None or row.bytes_weights is None:
        return WhatIfRow(**named, reason="its bytes were not counted")
    return _quantised(row, part, span, change.quantization, roofs, itemsize or 0, named)


def _quantised(
    row: LayerRow, part: float, span: float, name: str, roofs: _Roofs, itemsize: int, named: dict[str, Any]
) -> WhatIfRow:
    """Apply the two lines of the head of this file to a row."""
    weights = row.bytes_weights or 0
    after = weights * LEAST_BITS[name] / (8 * itemsize)
    moved, fewer = (row.bytes or 0) * part, (weights - after) * part
    flops = round(row.flops * part) if row.flops is not None else None
    least, later = roofs.seconds(flops, moved), roofs.seconds(flops, moved - fewer)
    busy = span * min(row.busy_share if row.busy_share is not None else 1.0, 1.0)
    at_most = busy * fewer / moved if moved else 0.0
    alike = None
    if least and later is not None:
        at_most = min(at_most, busy - later) if busy >= least else at_most
        alike = None if row.at_least else min(busy * (1 - later / least), at_most)
    return WhatIfRow(
        **(named | {"least_s": least}), bytes_weights_after=after, least_after_s=later, at_most_s=at_most, alike_s=alike
    )


def _untouched(row: LayerRow, itemsize: int | None) -> str | None:
    """Say why a row's weights would stay as they are, None where they would not."""
    if row.kind in KEPT:
        return "left as it is"
    if row.weights_dtype and row.weights_dtype.split(" + ")[0] not in ITEMSIZE:
        return f"its weights are {row.weights_dtype} {ALREADY}"
    if row.bytes_weights == 0:
        return "it reads no weights"
    return None if itemsize else "the dtype of its weights is not known"


def _sum(rows: Sequence[WhatIfRow], whole: float, of_request: float | None) -> WhatIfSum:
    span = fsum(it.span_s or 0.0 for it in rows)
    at_most = fsum(it.at_most_s or 0.0 for it in rows)
    known = [it.alike_s for it in rows if it.at_most_s is not None]
    alike = None if None in known or not known else fsum(it for it in known if it is not None)
    share = min(at_most / whole, 1.0)
    request = share * of_request if of_request is not None else None
    return WhatIfSum(
        rows=len(rows),
        span_s=span,
        at_most_s=at_most,
        alike_s=alike,
        span_share=span / whole,
        at_most_share=share,
        alike_share=None if alike is None else alike / whole,
        at_most_speedup=_speedup(share),
        request_share=request,
        request_speedup=None if request is None else _speedup(request),
    )


def _speedup(share: float) -> float | None:
    """Amdahl's law: how many times as fast it is without a share of its time; None without all of it."""
    return 1 / (1 - share) if share < 1 else None


def _assumed(change: Change, roofs: _Roofs, rows: Sequence[LayerRow]) -> list[str]:
    if change.quantization is None:
        gone = f"take 1/{change.speedup:g} of their time" if change.speedup else "cost nothing"
        return [f"The layers {gone}; all else stays as it was measured."]
    known = roofs.flops_s is not None and roofs.bytes_s is not None
    said = [
        "At most: all of a layer's busy time goes into moving its bytes, at the pace at which it moved them"
        + (
            ", and none of it beyond the roof of the device, but for layers that passed it: their bytes lay in a cache."
            if known
            else "; the device's peaks are not known."
        ),
        "All weights of the layers change their format, norms and biases too; the scales of rows and groups take no "
        "room, and unpacking the codes costs nothing.",
    ]
    if any(row.kind == "lm_head" for row in rows):
        said.append("The output head and the embeddings stay as they are, as transformers leaves them.")
    if any(row.kind == "patch_embed" for row in rows):
        said.append("Patches are embedded by a convolution, whose weights stay as they are.")
    if any(row.busy_share is not None for row in rows):
        said.append("What a layer waits for its host, by the trace, stays.")
    if known:
        said.append("Alike: a layer keeps the share of its roof that it reached.")
    return said
