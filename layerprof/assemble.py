"""Session -> Run: joins what the passes read into rows, books and totals. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layerprof import energy_pass, environment, ledger, totals
from layerprof.errors import LayerprofError
from layerprof.records import Energy, LayerRow, Ledger, Quality, Run, Sample, TaskMetric, Totals, Wer
from layerprof.session import Session

CONVENTION = "2 FLOPs per multiply-accumulate, causal attention not halved, padding counted, matrix work only"


def run(session: Session, *, created: str, failed: LayerprofError | None) -> Run:
    """Return the frozen run of what the session has; what was not measured is None and has its reason."""
    status = "interrupted" if session.interrupted else "failed" if failed else "done"
    if failed:
        session.warnings.append(f"The run failed: {failed.problem} {failed.remedy}")
    rows, books = books_of(session)
    return Run(
        created=created,
        status=status,
        settings=_settings(session),
        environment=environment.describe(session.device),
        model=session.subject.provenance,
        dataset=_dataset(session),
        samples=sum(walked.rows for walked in session.bare),
        totals=_totals(session),
        layers=rows,
        ledger=books,
        passes=session.passes | _pass_seconds(session),
        uncounted_ops=dict(session.work.uncounted) if session.work else {},
        warnings=tuple(session.warnings),
        files=session.files | {"folder": str(session.folder)},
    )


def books_of(session: Session) -> tuple[tuple[LayerRow, ...], Ledger]:
    """Return the rows of the selected layers and the ledger of all of them."""
    joules = energy_pass.by_layer(session)
    every = ledger.rows(
        session.layers,
        spans=session.spans,
        work=session.work,
        kernels=session.kernels,
        energy=joules,
        roof=_roof(session),
    )
    books = ledger.close(
        every,
        spans=session.spans,
        work=session.work,
        kernels=session.kernels,
        energy=energy_pass.end_to_end(session),
        reasons=session.reasons,
    )
    wanted = {layer.name for layer in session.selected}
    return tuple(row for row in every if row.name in wanted), books


def _settings(session: Session) -> dict[str, Any]:
    """Return the settings as they took effect, with every 'auto' resolved."""
    chosen = session.settings.model_dump()
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
    return Totals(
        wer=wer,
        task_metric=metric,
        latency_s=totals.latency(session.bare),
        flops=work.total_flops if work else None,
        flops_per_sample=work.total_flops / count if work and complete else None,
        flops_useful=sum(item.flops_useful for item in layers) if work else None,
        flops_causal=sum(item.flops_causal for item in layers) if work else None,
        bytes=sum(item.bytes for item in layers) if work else None,
        energy=_energy(session),
        energy_estimate=energy_pass.estimate(session),
        peak_memory_bytes=session.peak_memory_bytes,
        overhead_ratio=totals.overhead_ratio(session.bare, session.hooked),
        output_tokens=totals.output_tokens(session.bare),
        prompt_tokens=sum(sum(batch.prompt_tokens) for batch in done),
        pad_tokens=sum(sum(batch.pad_tokens) for batch in done),
        image_tokens=sum(sum(batch.image_tokens) for batch in done),
    )


def _energy(session: Session) -> Energy:
    measured = energy_pass.totals(session)
    if measured is not None:
        return measured
    return Energy(
        joules=None,
        per_sample=None,
        per_output_token=None,
        quality=Quality.UNAVAILABLE,
        source="none",
        reason=session.reasons.get("energy", "the energy pass did not run"),
    )


def quality(session: Session) -> tuple[Wer | None, TaskMetric | None, list[Any]]:
    """Return word error rate, task metric and one score per answered sample."""
    from layerprof import wer as scoring

    examples = [example for batch in session.batches[: len(session.bare)] for example in batch.examples]
    if not examples:
        return None, None, []
    return scoring.score(
        [example.references for example in examples],
        [answer for walked in session.bare for answer in walked.generated.answers],
        [cut for walked in session.bare for cut in walked.generated.truncated],
        metric=session.dataset.metric,
    )


def samples(session: Session) -> tuple[Sample, ...]:
    """Return what was asked and answered, one record per answered sample, in the order of the walk."""
    _, _, scores = quality(session)
    records = []
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


def _roof(session: Session) -> Callable[[int, int], float] | None:
    """Return (flops, bytes) -> the least seconds they can take on this GPU; None where its peaks are not known."""
    if session.device == "cpu":
        return None
    from layerprof import estimate

    gpu = estimate.gpu_by_device_name(environment.describe(session.device)["device_name"])
    dtype = session.subject.provenance["dtype"]
    return None if gpu is None else lambda flops, moved: estimate.roof_seconds(flops, moved, gpu, dtype)


def _pass_seconds(session: Session) -> dict[str, Any]:
    return {
        "bare_s": sum(walked.latency_s for walked in session.bare),
        "latency_s": sum(walked.latency_s for walked in session.hooked) or None,
        "reasons": dict(session.reasons),
    }
