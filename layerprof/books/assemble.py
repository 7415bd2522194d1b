"""Asked and read -> Run: joins what the passes read into rows, books and totals. Nothing is measured here."""

from __future__ import annotations

import datetime
from typing import Any, Literal

from layerprof.books import (
    cost,
    fed,
    joules,
    layer_joules,
    ledger,
    memory,
    not_counted,
    recurrence,
    request,
    rows,
    throughput,
    totals,
)
from layerprof.books.answers import Scored
from layerprof.books.device import roof, surroundings
from layerprof.books.evidence import Asked, Read
from layerprof.books.shown import shown
from layerprof.errors import LayerprofError
from layerprof.flops.formulas import CONVENTION
from layerprof.quality.normalise import rules
from layerprof.records import Energy, EnergyEstimate, LayerRow, Ledger, Run, Totals

COLUMNS = {"work": "flops", "spans": "span_s", "kernels": "busy_s", "energy": "energy_j"}


def run(asked: Asked, read: Read, scored: Scored, failed: LayerprofError | None = None) -> Run:
    """Return the frozen run; what was not measured is None and has its reason.

    `scored` are the answers that the rates are of: the bare pass's, or those of a walk for quality alone.
    """
    status: Literal["done", "interrupted", "failed"]
    status = "interrupted" if read.interrupted else "failed" if failed else "done"
    estimate, why_none = joules.estimate(asked, read)
    layers, books = books_of(asked, read, layer_joules.layer_energy(asked, read, estimate))
    reasons = read.reasons | ({"energy_estimate": why_none} if why_none else {})
    steps = recurrence.warning(asked.layers, read.spans, read.work)
    told = filter(None, (not_counted.warning(books.flops), not_counted.weights_warning(read.weights), steps))
    ended = (f"The run failed: {failed.problem} {failed.remedy}",) if failed else ()
    return Run(
        created=now(),
        status=status,
        settings=_settings(asked, read),
        environment=surroundings(asked.device, asked.model["dtype"]),
        model=dict(asked.model),
        dataset=_dataset(asked, read),
        samples=read.rows,
        instrumented=read.instrumented,
        totals=_totals(asked, read, scored, estimate, books),
        layers=layers,
        ledger=books,
        energy_closure=layer_joules.closure(asked.layers, read.energy, read.spans),
        passes=read.passes | _pass_facts(read, reasons) | {"other_load": dict(read.other_load)},
        uncounted_ops=read.work.uncounted_calls() if read.work else {},
        warnings=(*read.warnings, *told, *ended),
        files=dict(read.files),
    )


def books_of(asked: Asked, read: Read, energy: rows.LayerEnergy) -> tuple[tuple[LayerRow, ...], Ledger]:
    """Return the rows of the selected layers and the ledger of all of them."""
    reasons = {column: read.reasons[name] for name, column in COLUMNS.items() if name in read.reasons}
    best = roof(asked.device, asked.model["dtype"])
    given = (asked.layers, read.spans, read.work, read.kernels, energy)
    every = rows.rows(*given, memory=read.memory, weights=read.weights, roof=best)
    books = ledger.close(
        asked.layers,
        read.spans,
        read.work,
        read.kernels,
        energy,
        total_energy_j=joules.end_to_end(read.energy),
        reasons=reasons,
    )
    why = read.reasons.get("memory", "the memory pass did not run") if asked.settings.memory else ""
    more = {
        "request_s": request.close(read.made, read.bare),
        "memory_bytes": memory.column(asked.layers, read.memory, why),
    }
    books = books.model_copy(update=more)
    return shown(every, asked.selected, read.spans, read.work), books


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _settings(asked: Asked, read: Read) -> dict[str, Any]:
    """Return the settings as they took effect, with every 'auto' resolved."""
    return asked.settings.model_dump(mode="json") | {
        "model": asked.model["name"],
        "device": asked.device,
        "dtype": asked.model["dtype"],
        "source": asked.dataset.source,
        "energy_sensor": _sensor(asked, read),
        "max_new_tokens": asked.max_new_tokens,
        "output": asked.output,
        "convention": CONVENTION,
        "prompt_id": asked.dataset.prompt_id,
        "padding_side": "left",
        "decoding": "greedy",
        "normalisation": rules(asked.dataset.metric),
    }


def _sensor(asked: Asked, read: Read) -> str:
    """Return whose counter was read; where none was, what was asked for by name, or that there is none."""
    chosen = asked.settings.energy_sensor
    source = joules.totals(read).source
    return chosen if chosen != "auto" else source.partition("_")[0] or "none"


def _dataset(asked: Asked, read: Read) -> dict[str, Any]:
    data = asked.dataset
    return {
        "name": data.name,
        "source": data.source,
        "revision": data.revision,
        "prompt_id": data.prompt_id,
        "metric": data.metric,
        "asked": data.asked,
        "dropped": dict(data.dropped),
        "bad": dict(asked.batches.bad),
        "ids": [name for questions in read.questions for name in questions.ids],
        "question_cut": sum(cut > 0 for batch in read.questions for cut in batch.question_cut),
    }


def _totals(asked: Asked, read: Read, scored: Scored, estimate: EnergyEstimate | None, books: Ledger) -> Totals:
    done = read.questions
    ratio, interval = totals.overhead(read.bare, read.hooked)
    return Totals(
        wer=scored.wer,
        task_metric=scored.task_metric,
        latency_s=totals.latency(read.bare, request.to_first_token(read.made, read.bare)),
        **totals.of_work(read.work, read.instrumented),
        bytes_at_least=bool(read.weights and read.weights.unseen),
        **throughput.of(read.bare, books.request_s),
        energy=_with_cost(joules.totals(read), asked, read, scored),
        energy_estimate=estimate,
        peak_memory_bytes=read.peak_memory_bytes,
        overhead_ratio=ratio,
        overhead_ci95=interval,
        request_s=request.totals(read.made, read.bare),
        output_tokens=totals.output_tokens(read.bare),
        prompt_tokens=sum(sum(batch.prompt_tokens) for batch in done),
        pad_tokens=sum(sum(batch.pad_tokens) for batch in done),
        image_tokens=sum(sum(batch.image_tokens) for batch in done),
        fed=fed.totals(done),
    )


def _with_cost(energy: Energy, asked: Asked, read: Read, scored: Scored) -> Energy:
    """Return the joules with those of a right answer, of the samples that the energy is of: the first ones."""
    scores = [sample.metric for sample in scored.samples[: read.instrumented]]
    return energy.model_copy(update=cost.per_correct_answer(energy, scores, asked.dataset.metric))


def _pass_facts(read: Read, reasons: dict[str, str]) -> dict[str, Any]:
    return {
        "bare_s": read.wall_s,
        "latency_s": sum(walked.latency_s for walked in read.hooked) or None,
        "spans_dropped": read.spans.dropped if read.spans else None,
        "decode_by_step": rows.decode_by_step(read.spans) if read.spans else [],
        "reasons": reasons,
        "energy": joules.facts(read.energy),
        **({"memory": memory.facts(read.memory)} if read.memory else {}),
    }
