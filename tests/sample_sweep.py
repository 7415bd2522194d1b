"""A small sweep whose every figure was chosen by hand.

Two tables, a skipped cell, a crashed one, a guard that struck.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sample_run import sample_run, samples

from layerprof.records import LatencyTotals, Run, Statistic
from layerprof.runs import batch_files, store
from layerprof.sweep.cells import Guards, Outcome, PlannedCell, PlannedTable, Status, SweepRecord
from layerprof.sweep.folder import SweepFolder

NASTY = "<script>alert(1)</script> | *bold*"
"""Text from outside that no report may obey."""

REPORTED = (
    {
        "table": "1 batch size",
        "dataset": "textvqa",
        "optimization": "eager",
        "batch_size": 1,
        "image_size": 224,
        "max_input_len": 200,
        "wer": 28.2,
        "latency_s": 0.8,
        "energy_j": 130.0,
        "flops_as_reported": "617.84 GFLOPS",
    },
    {
        "table": "1 batch size",
        "dataset": "textvqa",
        "optimization": "eager",
        "batch_size": 4,
        "image_size": 224,
        "max_input_len": 200,
        "wer": 14.3,
        "latency_s": 1.2,
        "energy_j": 49.0,
        "flops_as_reported": None,
    },
    {"table": "1 batch size", "dataset": None, "batch_size": None, "wer": 10.3, "latency_s": 1.8, "energy_j": 53.0},
)


def run(batch_s: float, wer: float = 0.25, joules: float = 20.0, **settings: Any) -> Run:
    """Return a run whose batches take so long, with a word error rate and joules of 4 samples."""
    base = sample_run()
    totals = base.totals
    assert totals.wer is not None
    changed = totals.model_copy(
        update={
            "wer": totals.wer.model_copy(update={"corpus_min": wer}),
            "latency_s": LatencyTotals(
                per_batch=Statistic(median=batch_s, p95=batch_s, ci95=(0.9 * batch_s, 1.1 * batch_s), n=2),
                per_sample=Statistic(median=batch_s / 2, p95=batch_s / 2, ci95=None, n=2),
                ttft=totals.latency_s.ttft,
                per_output_token=totals.latency_s.per_output_token,
            ),
            "energy": totals.energy.model_copy(update={"joules": joules, "per_sample": joules / 4}),
        }
    )
    return base.model_copy(update={"totals": changed, "settings": base.settings | settings})


def save_run(made: Run, folder: Path, latencies: tuple[float, ...]) -> None:
    """Write a run with the times of its batches, and of one layer's calls in them, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{index},2,{seconds!r},,10\n" for index, seconds in enumerate(latencies))
    (folder / batch_files.BATCHES_FILE).write_text(f"batch,rows,latency_s,first_token_s,new_tokens\n{rows}")
    name = "model.language_model.layers.0"
    spans = "".join(f"{name},decode,{index},5,{seconds / 10!r}\n" for index, seconds in enumerate(latencies))
    (folder / batch_files.SPANS_FILE).write_text(f"name,phase,batch,calls,span_s\n{spans}")
    four = [
        sample.model_copy(
            update={"id": f"{sample.id}{batch}", "key": f"k{sample.id}{batch}", "batch": batch, "references": ("stop",)}
        )
        for batch in range(len(latencies))
        for sample in samples()
    ]
    store.save(made, folder, samples=four)


def sample_sweep(path: Path, slower: float = 1.0) -> Path:
    """Write the sweep into a folder; `slower` multiplies every time."""
    folder = SweepFolder(path)
    common = {"dataset": "textvqa", "optimization": "eager", "image_size": 224, "max_input_len": 200, "model": "demo"}
    planned = []

    def cell(
        key: str, points: dict[str, tuple[dict[str, Any], ...]], status: Status, reason: str | None = None, **more: Any
    ) -> None:
        planned.append(PlannedCell(key=key, label=key, choices=common | more, repeat=0, points=points))
        guards = None
        if status is Status.DONE:
            seconds = {1: 0.1, 4: 0.15}[more["batch_size"]] * slower
            made = run(seconds, wer=0.25 if more["batch_size"] == 1 else 0.2, batch_size=more["batch_size"])
            save_run(made, folder.cell_folder(key), (seconds, seconds))
            struck = ("answers depend on the batch: 25 % of 4 samples are answered the same alone",)
            guards = Guards(
                batch_invariant=0.25 if more["batch_size"] == 4 else None,
                checked=4,
                truncated_share=0.0,
                hypothesis_words=1.5,
                reference_words=1.0,
                padding_share=0.125,
                not_finite=0,
                flags=struck if more["batch_size"] == 4 else (),
            )
        folder.commit(Outcome(key=key, status=status, reason=reason, guards=guards, seconds=10.0))

    sizes, devices = "batch_size", "device"
    cell("aa", {"sizes": ({sizes: 1},)}, Status.DONE, batch_size=1)
    cell("bb", {"sizes": ({sizes: 4},), "devices": ({devices: "cpu"},)}, Status.DONE, batch_size=4)
    cell("cc", {"sizes": ({sizes: 16},)}, Status.CRASHED, f"the process was killed {NASTY}", batch_size=16)
    cell("dd", {"devices": ({devices: "cuda"},)}, Status.SKIPPED, "no CUDA device", batch_size=4, device="cuda")
    folder.write_record(
        SweepRecord(
            created="2026-01-01T00:00:00+00:00",
            name="sample",
            title=f"Sample {NASTY}",
            about="Made by hand.",
            tables=(
                PlannedTable(
                    name="sizes",
                    title="Batch size",
                    axes={sizes: [1, 4, 16]},
                    reference=REPORTED,
                    reasons=({"quantity": "wer", "text": "the report padded on the right"},),
                ),
                PlannedTable(name="devices", title="GPU against CPU", axes={devices: ["cuda", "cpu"]}),
            ),
            cells=tuple(planned),
            wall_s=42.0,
            cells_s=40.0,
        )
    )
    return path
