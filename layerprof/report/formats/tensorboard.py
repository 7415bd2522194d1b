"""The run for TensorBoard: scalars over the layers, the summary as text, settings and results as HParams.

Written with TensorBoard's own protocol buffers, without torch. The profiler's trace lies in the same folder under the
name that the profiler plugin looks for, so one `--logdir` shows everything.
"""

from __future__ import annotations

import io
import os
import re
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from layerprof.records import BLOCK_KINDS, Run, Statistic
from layerprof.report import balance, facts, layer_lines, request
from layerprof.report.formats import markdown
from layerprof.report.payload import QUANTITIES, payload
from layerprof.runs.store import write_atomic

SUFFIX = ".layerprof"
"""Ending of our event files, so that writing again replaces them and touches no others."""

AXES = ("dataset", "batch_size", "image_size", "max_input_len", "optimization", "attention")
"""What sweeps vary: the columns that the HParams table shows unasked."""
HPARAMS = (
    *AXES,
    "device",
    "dtype",
    "model",
    "weights",
    "max_new_tokens",
    "samples",
    "fixed_tokens",
    "padding_side",
    "source",
    "seed",
)
"""Settings that change what a run measures."""


def write(run: Run, folder: str | Path) -> Path:
    """Write the run's event file into the folder, in place of an earlier one, and return it. Raises OSError.

    Whole or not at all, and not by tensorboard's own writer: its thread prints a traceback where the disk is full.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    place, seconds = Path(folder), _seconds(run.created)
    records = io.BytesIO()
    writer = RecordWriter(records)
    writer.write(Event(wall_time=seconds, file_version="brain.Event:2").SerializeToString())
    for step, value in _values(run):
        writer.write(_event(step, value, seconds).SerializeToString())
    former = list(place.glob(f"events.out.tfevents.*{SUFFIX}"))
    file = place / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.0{SUFFIX}"
    write_atomic(file, records.getvalue())
    for other in former:
        if other != file:
            other.unlink()
    return file


def scalars(run: Run) -> Iterator[tuple[str, int, float]]:
    """Yield (tag, step, SI value): per quantity and phase over the layer index, decode over its steps, totals, books.

    Layers that are not repeated have no index to be drawn over; their figures are in the summary's tables, and so are
    FLOPs and bytes that are only a lower bound, which a plot could not say.
    """
    data = payload(run)
    for row in data["rows"]:
        place = _place(row)
        for key, _, _, unit in QUANTITIES if place else ():
            if row[key] is not None and place and not row.get(f"{key}_at_least"):
                yield f"{_series(key, unit)}/{place[0]}", place[1], float(row[key])
    for step in data["steps"]:
        yield "decode over steps/median_s", int(step["step"]), float(step["median_s"])
    for name, value in results(run).items():
        yield f"end to end/{name}", 0, value
    for part in request.parts(run):
        if part.total_s is not None:
            yield f"ledger request_s/{part.name}", 0, part.total_s
    for book in balance.books(run):
        for label in ("layers", "residual", "total"):
            figure = book.cell(label)
            if figure is not None and not (book.column.at_least and label != "residual"):
                yield f"ledger {book.name}/{label}", 0, float(figure)


def _series(key: str, unit: str) -> str:
    """Return the name of a quantity's series: of sums over calls, what one call has of them."""
    whole = unit not in ("FLOP", "B", "J") or key == "flops_per_token" or key in layer_lines.AS_STORED
    return key if whole else f"{key}_per_call"


def _place(row: dict[str, Any]) -> tuple[str, int] | None:
    """Return (series, index) of a repeated layer, or of a submodule by the number in its name; None for the rest."""
    if row["kind"] in BLOCK_KINDS:
        series = row["phase"] if row["kind"] != "encoder_layer" else f"{row['phase']} encoder"
        return series, row["index"]
    numbered = re.fullmatch(r".*\.(\d+)\.(.+)", row["label"])
    if row["kind"] == "module" and numbered:
        return f"{row['phase']} {numbered[2]}", int(numbered[1])
    return None


def results(run: Run) -> dict[str, float]:
    """Return the end-to-end figures that were measured, by name with SI unit."""
    return {name: float(value) for name, value in _figures(run).items() if value is not None}


def _figures(run: Run) -> dict[str, float | None]:
    totals, latency = run.totals, run.totals.latency_s
    metric = {totals.task_metric.name: totals.task_metric.value} if totals.task_metric else {}
    return {
        "wer": totals.wer.corpus_min if totals.wer else None,
        **dict.fromkeys(facts.METRIC_NAMES),
        **metric,
        "latency_per_batch_s": latency.per_batch.median,
        "latency_per_sample_s": latency.per_sample.median,
        "ttft_s": _median(latency.ttft),
        "ttft_request_s": _median(latency.ttft_request),
        "time_per_output_token_s": _median(latency.per_output_token),
        **{f"{name}_s": _median(getattr(totals.request_s, name, None)) for name in request.PARTS},
        "samples_per_s": totals.samples_per_s,
        "output_tokens_per_s": totals.output_tokens_per_s,
        "accepted_per_step": totals.accepted_per_step,
        "flops_per_sample": None if totals.flops_at_least else totals.flops_per_sample,
        "energy_per_sample_j": totals.energy.per_sample,
        "energy_per_correct_answer_j": totals.energy.per_correct_answer,
        "peak_memory_bytes": totals.peak_memory_bytes,
        "overhead_ratio": facts.known_overhead(run),
    }


def _median(statistic: Statistic | None) -> float | None:
    return statistic.median if statistic else None


def _values(run: Run) -> Iterator[tuple[int, Any]]:
    """Yield (step, Summary.Value) of everything that is shown."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar import metadata as scalar
    from tensorboard.plugins.text import metadata as text
    from tensorboard.util.tensor_util import make_tensor_proto

    for tag, step, figure in scalars(run):
        meta = scalar.create_summary_metadata(display_name=None, description=_label(run, tag))
        yield step, Summary.Value(tag=tag, tensor=make_tensor_proto(figure, dtype="float32"), metadata=meta)
    out = io.StringIO()
    markdown.render(run, out)
    meta = text.create_summary_metadata(display_name=None, description=None)
    yield 0, Summary.Value(tag="summary", tensor=make_tensor_proto([out.getvalue()], dtype="string"), metadata=meta)
    for tag, data in _hparams(run):
        yield 0, Summary.Value(tag=tag, metadata=data)


def _label(run: Run, tag: str) -> str | None:
    """Return how joules were obtained, which TensorBoard shows with the plot; None for other figures."""
    if "energy" not in tag:
        return None
    if "estimate" in tag:
        return "estimated"
    energy = run.totals.energy
    return f"{energy.quality.value}: {energy.source}" if tag.startswith("end to end") else facts.energy_label(run)


def _hparams(run: Run) -> Iterator[tuple[str, Any]]:
    """Yield the (tag, metadata) that make the run one session of TensorBoard's HParams table.

    TensorBoard takes the columns from any one run, so each names all figures that a run may have.
    """
    from google.protobuf.struct_pb2 import Value
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    known = {name: run.settings.get(name) for name in HPARAMS}
    chosen = {name: value for name, value in known.items() if isinstance(value, (str, int, float, bool))}
    names = [f"end to end/{name}" for name in _figures(run)]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name)) for name in names]
    infos = [api_pb2.HParamInfo(name=name, type=_kind(value), differs=name in AXES) for name, value in chosen.items()]
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=_seconds(run.created))
    for name, value in chosen.items():
        start.hparams[name].CopyFrom(_value(Value, value))
    done = api_pb2.STATUS_SUCCESS if run.status == "done" else api_pb2.STATUS_FAILURE
    packed = (
        (metadata.EXPERIMENT_TAG, {"experiment": api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)}),
        (metadata.SESSION_START_INFO_TAG, {"session_start_info": start}),
        (metadata.SESSION_END_INFO_TAG, {"session_end_info": plugin_data_pb2.SessionEndInfo(status=done)}),
    )
    for tag, content in packed:
        yield tag, metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))


def _kind(value: Any) -> Any:
    from tensorboard.plugins.hparams import api_pb2

    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64


def _value(make: Any, value: str | float | bool) -> Any:
    if isinstance(value, bool):
        return make(bool_value=value)
    return make(string_value=value) if isinstance(value, str) else make(number_value=value)


def _event(step: int, value: Any, seconds: float) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Event(wall_time=seconds, step=step, summary=Summary(value=[value]))


def _seconds(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0
