"""Session -> Run: joins what the passes read into rows, books and totals. Nothing is measured here."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Literal

from layerprof.books import joules, ledger, totals
from layerprof.books.rows import decode_by_step
from layerprof.errors import LayerprofError
from layerprof.flops.formulas import CONVENTION
from layerprof.machine import environment, gpus
from layerprof.measure.session import Session
from layerprof.readings import SpanReading, WorkReading
from layerprof.records import LayerRow, Ledger, Run, Sample, TaskMetric, Totals, Wer

if TYPE_CHECKING:
    from layerprof.measure.own_loop import LayerProfiler
    from layerprof.quality.wer import SampleScore

COLUMNS = {"work": "flops", "spans": "span_s", "kernels": "busy_s", "energy": "energy_j"}


def run(session: Session, failed: LayerprofError | None) -> Run:
    """Return the frozen run of what the session has; what was not measured is None and has its reason."""
    status: Literal["done", "interrupted", "failed"]
    status = "interrupted" if session.interrupted else "failed" if failed else "done"
    if failed:
        session.warnings.append(f"The run failed: {failed.problem} {failed.remedy}")
    rows, books = books_of(session)
    return Run(
        created=now(),
        status=status,
        settings=_settings(session),
        environment=surroundings(session.device, session.subject.provenance["dtype"]),
        model=session.subject.provenance,
        dataset=_dataset(session),
        samples=sum(walked.rows for walked in session.bare),
        totals=_totals(session),
        layers=rows,
        ledger=books,
        energy_closure=joules.closure(session),
        passes=session.passes | _pass_seconds(session) | {"other_load": dict(session.other_load)},
        uncounted_ops=dict(session.work.uncounted) if session.work else {},
        warnings=tuple(session.warnings),
        files=dict(session.files),
    )


def books_of(session: Session) -> tuple[tuple[LayerRow, ...], Ledger]:
    """Return the rows of the selected layers and the ledger of all of them."""
    energy = joules.layer_energy(session)
    reasons = {column: session.reasons[name] for name, column in COLUMNS.items() if name in session.reasons}
    best = roof(session.device, session.subject.provenance["dtype"])
    every = ledger.rows(session.layers, session.spans, session.work, session.kernels, energy, roof=best)
    books = ledger.close(
        session.layers,
        session.spans,
        session.work,
        session.kernels,
        energy,
        total_energy_j=joules.end_to_end(session),
        reasons=reasons,
    )
    wanted = {layer.name for layer in session.selected}
    return tuple(row for row in every if row.name in wanted), books


def own_run(
    prof: LayerProfiler, spans: SpanReading, work: WorkReading | None, reason: str, error: BaseException | None
) -> Run:
    """Return the run of a user's own model and loop: layers, books and latency; no quality, since nothing was asked."""
    reasons = {"flops": reason} if reason else {}
    every = ledger.rows(prof.layers, spans, work, roof=roof(prof.device, prof.dtype))
    wanted = {layer.name for layer in prof.selected}
    return Run(
        created=now(),
        status="failed" if error else "done",
        settings={"layers": prof.selector, "device": prof.device, "dtype": prof.dtype, "convention": CONVENTION},
        environment=surroundings(prof.device, prof.dtype),
        model={"name": type(prof.model).__name__, "parameters": sum(p.numel() for p in prof.model.parameters())},
        dataset={"name": "own calls"},
        samples=prof.rows,
        totals=totals.of_windows(spans, work, prof.rows),
        layers=tuple(row for row in every if row.name in wanted),
        ledger=ledger.close(prof.layers, spans, work, reasons=reasons),
        passes={"decode_by_step": decode_by_step(spans)},
        uncounted_ops=dict(work.uncounted) if work else {},
        warnings=prof.warnings(error),
    )


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _settings(session: Session) -> dict[str, Any]:
    """Return the settings as they took effect, with every 'auto' resolved."""
    chosen = session.settings.model_dump(mode="json")
    return chosen | {
        "model": session.subject.provenance["name"],
        "device": session.device,
        "dtype": session.subject.provenance["dtype"],
        "source": session.dataset.source,
        "max_new_tokens": session.max_new_tokens,
        "output": str(session.folder),
        "convention": CONVENTION,
        "prompt_id": session.dataset.prompt_id,
        "padding_side": "left",
        "decoding": "greedy",
    }


def _dataset(session: Session) -> dict[str, Any]:
    data = session.dataset
    return {
        "name": data.name,
        "source": data.source,
        "revision": data.revision,
        "prompt_id": data.prompt_id,
        "metric": data.metric,
        "dropped": dict(data.dropped),
        "ids": [example.id for example in data.examples],
        "question_cut": sum(cut > 0 for batch in session.batches for cut in batch.question_cut),
    }


def _totals(session: Session) -> Totals:
    done = session.batches[: len(session.bare)]
    wer, metric, _ = quality(session)
    work, count = session.work, sum(walked.rows for walked in session.bare)
    complete = work is not None and sum(len(batch.examples) for batch in session.batches) == count
    layers = [*work.layers.values(), *work.outside.values()] if work else []
    ratio, interval = totals.overhead(session.bare, session.hooked)
    return Totals(
        wer=wer,
        task_metric=metric,
        latency_s=totals.latency(session.bare),
        flops=work.total_flops if work else None,
        flops_per_sample=work.total_flops / count if work and complete else None,
        flops_useful=sum(item.flops_useful for item in layers) if work else None,
        flops_causal=sum(item.flops_causal for item in layers) if work else None,
        bytes=sum(item.bytes for item in layers) if work else None,
        energy=joules.totals(session),
        energy_estimate=joules.estimate(session),
        peak_memory_bytes=session.peak_memory_bytes,
        overhead_ratio=ratio,
        overhead_ci95=interval,
        output_tokens=totals.output_tokens(session.bare),
        prompt_tokens=sum(sum(batch.prompt_tokens) for batch in done),
        pad_tokens=sum(sum(batch.pad_tokens) for batch in done),
        image_tokens=sum(sum(batch.image_tokens) for batch in done),
    )


def quality(session: Session) -> tuple[Wer | None, TaskMetric | None, list[SampleScore]]:
    """Return word error rate, task metric and one score per answered sample."""
    from layerprof.quality import wer as scoring

    examples = [example for batch in session.batches[: len(session.bare)] for example in batch.examples]
    if not examples:
        return None, None, []
    return scoring.score(
        [example.references for example in examples],
        [answer for walked in session.bare for answer in walked.generated.answers],
        [cut for walked in session.bare for cut in walked.generated.truncated],
        metric=session.dataset.metric,
        choices=[example.choices for example in examples],
    )


def samples(session: Session) -> tuple[Sample, ...]:
    """Return what was asked and answered, one record per answered sample, in the order of the walk."""
    _, _, scores = quality(session)
    records: list[Sample] = []
    for walked, batch in zip(session.bare, session.batches, strict=False):
        for row, example in enumerate(batch.examples):
            score = scores[len(records)]
            records.append(
                Sample(
                    id=example.id,
                    batch=batch.index,
                    prompt=batch.prompts[row],
                    references=example.references,
                    answer=walked.generated.answers[row],
                    answer_tokens=walked.generated.answer_tokens[row],
                    truncated=walked.generated.truncated[row],
                    prompt_tokens=batch.prompt_tokens[row],
                    image_tokens=batch.image_tokens[row],
                    pad_tokens=batch.pad_tokens[row],
                    question_cut=batch.question_cut[row],
                    wer=score.wer,
                    metric=score.metric,
                )
            )
    return tuple(records)


def roof(device: str, dtype: str) -> ledger.Roof | None:
    """Return (flops, bytes, seconds) -> share of the roof that was reached; None where the peaks are not known."""
    gpu = _gpu(device)
    if gpu is None:
        return None

    def share(flops: float, moved: float, seconds: float) -> float | None:
        least = gpus.roof_seconds(flops, moved, gpu, dtype)
        return least / seconds if least is not None and seconds > 0 else None

    return share


def surroundings(device: str, dtype: str) -> dict[str, Any]:
    """Return the environment block, with the device's published peaks where they are known."""
    gpu = _gpu(device)
    peak = gpu.peak(dtype) if gpu else None
    known = {"flops_per_s": peak, "bytes_per_s": gpu.bandwidth_bytes_s} if gpu and peak else None
    return environment.describe(device) | {"peaks": known}


def _gpu(device: str) -> gpus.Gpu | None:
    return None if device == "cpu" else gpus.gpu_by_device_name(environment.device_name(device))


def _pass_seconds(session: Session) -> dict[str, Any]:
    return {
        "bare_s": sum(walked.latency_s for walked in session.bare),
        "latency_s": sum(walked.latency_s for walked in session.hooked) or None,
        "spans_dropped": session.spans.dropped if session.spans else None,
        "decode_by_step": decode_by_step(session.spans) if session.spans else [],
        "reasons": dict(session.reasons),
        "energy": joules.facts(session),
    }
