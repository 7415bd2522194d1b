"""What a model will cost, without loading it: FLOPs, bytes, memory and roofline bounds per layer and phase.

The model is built from its configuration on ghost tensors (`ghost.py`) and answers a prompt (`rehearsal.py`) under the
same hook that counts a real run, so FLOPs and bytes are those of `layerprof profile` for this input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from layerprof.books import memory as memory_books
from layerprof.books import not_counted
from layerprof.books.ledger import close
from layerprof.errors import RequestError
from layerprof.estimate import quantized
from layerprof.estimate.result import Estimate, EstimateMemory, EstimateRow, EstimateTotals, Unquantized
from layerprof.machine import stored
from layerprof.machine.gpus import Gpu, bound_by, gpu_by_name, roof_seconds
from layerprof.machine.internals import attention_of
from layerprof.machine.placement import DTYPES, torch_dtype
from layerprof.models.quantized import quiet
from layerprof.readings import Key, Layer, MemoryReading, Work
from layerprof.records import BLOCK_KINDS, LedgerColumn, Phase
from layerprof.settings import ImageSize, square_side

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from layerprof.estimate.rehearsal import Rehearsal
    from layerprof.models.quantization import StoragePlan

MOST = 10_000_000
MOST_POSITIONS = 5_000_000
"""Token ids are real numbers in memory, unlike all that the model makes of them."""


@quiet()
def estimate(
    model: str | Path | dict[str, Any] | PreTrainedConfig,
    *,
    batch_size: int = 1,
    image_size: ImageSize = 224,
    text_tokens: int = 100,
    new_tokens: int = 16,
    dtype: str = "fp16",
    gpu: str | None = None,
    quantization: str = "none",
    quantization_skip: str | None = None,
) -> Estimate:
    """Estimate one `generate()`: `batch_size` rows of one image and `text_tokens` of text, `new_tokens` written each.

    `model` is a name as `layerprof profile` takes it, a folder or file with a configuration, or a configuration;
    what `auto` chose stands in `model` with the reason. Raises RequestError for what cannot be: an unknown model, dtype
    or device, sizes below 1, an image that does not divide.
    """
    image_size = square_side(image_size)
    _check(batch_size, image_size, text_tokens, new_tokens, dtype)
    quantized.check(quantization, quantization_skip)
    device = gpu_by_name(gpu) if gpu else None
    from layerprof.models import configuration

    configured = configuration.find(model)
    config = configured.config
    given = {"rows": batch_size, "image_size": image_size, "text_tokens": text_tokens, "new_tokens": new_tokens}
    plain = _rehearsed(config, given, dtype, device)
    if quantization == "none":
        shown, changed = plain, {}
    else:
        shown = _rehearsed(config, given, dtype, device, (quantization, quantization_skip))
        changed = _beside(shown, plain, device)
    return Estimate(
        model={
            "name": configured.name,
            "why": configured.why,
            "architecture": type(shown.live).__name__,
            "parameters": sum(p.numel() for p in shown.live.parameters()),
            "dtype": dtype,
        },
        settings={
            "batch_size": batch_size,
            "image_size": image_size,
            "text_tokens": text_tokens,
            "new_tokens": new_tokens,
            "image_tokens": shown.ran.image_tokens,
            "prompt_tokens": shown.ran.prompt_tokens,
        },
        gpu=_describe(device, dtype),
        totals=_sum(shown.own),
        phases=_by_phase(shown.own),
        memory=_memory(shown, device),
        ledger=_ledger(shown),
        uncounted_ops=shown.ran.work.uncounted_calls(),
        notes=(*shown.ran.notes, *_notes(config, device, dtype, shown)),
        **({"layers": shown.rows} | changed),
    )


@dataclass(frozen=True, slots=True)
class _Rehearsed:
    """A model that was rehearsed, and its rows; `own` are those of layers without what they call, whose sums add."""

    live: Any
    found: Sequence[Layer]
    ran: Rehearsal
    held: MemoryReading | None
    plan: StoragePlan | None
    rows: tuple[EstimateRow, ...]
    own: tuple[EstimateRow, ...]


def _rehearsed(
    config: Any, given: Mapping[str, int], dtype: str, device: Gpu | None, other: tuple[str, str | None] | None = None
) -> _Rehearsed:
    """Build the model and let it answer; `other` names another format of its weights, and what it leaves."""
    from layerprof.estimate import blueprint, memory, rehearsal
    from layerprof.estimate.ghost import Ghosts, have_sizes
    from layerprof.layers import find

    with Ghosts() as ghosts:
        live = blueprint.build(config, torch_dtype(dtype))
    found = find.find_layers(live)
    plan = quantized.store(live, found, *other, dtype) if other else None
    ran = rehearsal.rehearse(live, found, ghosts, **given)
    held = memory.rehearse(live, found, ghosts, **given) if have_sizes() else None
    missed = not_counted.by_row(ran.work)
    rows = _rows(found, ran.work.whole, missed, device, dtype, held)
    if other:
        formats = quantized.formats_of(live, found, other[0])
        rows = tuple(row.model_copy(update={"weights_dtype": formats[row.name]}) for row in rows)
    # Where layers call each other, rows hold the same work twice.
    own = _rows(found, ran.work.layers, missed, device, dtype)
    return _Rehearsed(live, found, ran, held, plan, rows, own)


def _beside(shown: _Rehearsed, plain: _Rehearsed, device: Gpu | None) -> dict[str, Any]:
    """Return the fields of an estimate with weights in another format: what changed, beside the model as it is."""
    assert shown.plan is not None
    sums = Unquantized(totals=_sum(plain.own), phases=_by_phase(plain.own), memory=_memory(plain, device))
    return {
        "quantization": quantized.described(shown.plan),
        "unquantized": sums,
        "layers": quantized.beside(shown.rows, plain.rows),
    }


def _ledger(of: _Rehearsed) -> dict[Literal["flops", "memory_bytes"], LedgerColumn]:
    peak = memory_books.column(of.found, of.held)
    return {"flops": close(of.found, work=of.ran.work).flops, **({"memory_bytes": peak} if peak else {})}


def _by_phase(rows: Sequence[EstimateRow]) -> dict[Phase, EstimateTotals]:
    return {phase: _sum(of) for phase in Phase if (of := [row for row in rows if row.phase is phase])}


def _check(batch_size: int, image_size: int, text_tokens: int, new_tokens: int, dtype: str) -> None:
    given = {"batch-size": batch_size, "image-size": image_size, "text-tokens": text_tokens, "new-tokens": new_tokens}
    for name, value in given.items():
        if not 1 <= value <= MOST:
            raise RequestError(f"--{name} is {value}.", f"Give 1 to {MOST:,}.")
    if batch_size * text_tokens > MOST_POSITIONS:
        raise RequestError(
            f"--batch-size {batch_size} of --text-tokens {text_tokens} is {batch_size * text_tokens:,} positions.",
            f"Give at most {MOST_POSITIONS:,} together; work grows evenly with the rows.",
        )
    if dtype not in DTYPES:
        raise RequestError(f"There is no dtype '{dtype}'.", f"Use one of {', '.join(DTYPES)}.")


def _rows(
    found: Sequence[Layer],
    work: Mapping[Key, Work],
    missed: Mapping[Key, dict[str, int]],
    gpu: Gpu | None,
    dtype: str,
    held: MemoryReading | None = None,
) -> tuple[EstimateRow, ...]:
    keys = [(layer, phase) for layer in found for phase in Phase if (layer.name, phase) in work]
    weights = memory_books.weights_inside(found, held)
    rows = [_row(x, phase, work[x.name, phase], missed.get((x.name, phase), {}), gpu, dtype) for x, phase in keys]
    return tuple(row.model_copy(update=memory_books.row_fields(held, weights, (row.name, row.phase))) for row in rows)


def _row(layer: Layer, phase: Phase, work: Work, uncounted: dict[str, int], gpu: Gpu | None, dtype: str) -> EstimateRow:
    known, whole = bool(work.flops) or not uncounted, not uncounted
    bound = bound_by(work.flops, work.bytes, gpu, dtype) if gpu else None
    seconds = roof_seconds(work.flops, work.bytes, gpu, dtype) if gpu else None
    return EstimateRow(
        name=layer.name,
        tower=layer.tower,
        kind=layer.kind,
        index=layer.index,
        phase=phase,
        calls=work.calls,
        flops=work.flops if known else None,
        flops_causal=work.flops_causal if known else None,
        bytes=work.bytes,
        bytes_weights=work.bytes_weights,
        bytes_activations=work.bytes_activations,
        bytes_kv=work.bytes_kv,
        tokens_per_call=work.tokens_per_call,
        kv_per_call=work.kv_per_call,
        flops_per_byte=work.flops / work.bytes if work.bytes and whole else None,
        time_bound_s=seconds,
        bound=bound if whole or bound == "compute" else None,  # more work only binds it more
        energy_estimate_j=seconds * gpu.power_w if gpu and seconds is not None and whole else None,
        uncounted=uncounted,
    )


def _sum(rows: Sequence[EstimateRow]) -> EstimateTotals:
    def added(values: Sequence[float | None]) -> float | None:
        return None if any(v is None for v in values) else fsum(v for v in values if v is not None)

    work, at_least = sum(row.flops or 0 for row in rows), any(row.at_least for row in rows)
    return EstimateTotals(
        flops=work if work or not at_least else None,
        flops_at_least=at_least,
        bytes=sum(row.bytes for row in rows),
        time_bound_s=added([row.time_bound_s for row in rows]),
        energy_estimate_j=added([row.energy_estimate_j for row in rows]),
    )


def _memory(of: _Rehearsed, gpu: Gpu | None) -> EstimateMemory:
    ran, held = of.ran, of.held
    weights = sum(one.bytes for one in stored.weights(of.live))
    total = weights + ran.kv_bytes + ran.widest_bytes
    return EstimateMemory(
        weights=weights,
        kv_cache=ran.kv_bytes,
        activations=ran.widest_bytes,
        total=total,
        peak=held.total if held else None,
        device=int(gpu.memory_bytes) if gpu else None,
        fits=(held.total if held else total) <= gpu.memory_bytes if gpu else None,
    )


def _describe(gpu: Gpu | None, dtype: str) -> dict[str, Any] | None:
    if gpu is None:
        return None
    return {
        "name": gpu.name,
        "title": gpu.title,
        "peak_flops_s": gpu.peak(dtype),
        "bandwidth_bytes_s": gpu.bandwidth_bytes_s,
        "memory_bytes": gpu.memory_bytes,
        "l2_bytes": gpu.l2_bytes,
        "power_w": gpu.power_w,
        "source": gpu.source,
    }


def _notes(config: Any, gpu: Gpu | None, dtype: str, of: _Rehearsed) -> list[str]:
    notes = [quantized.note(of.plan, dtype)] if of.plan else []
    if getattr(config, "quantization_config", None):
        notes.append(f"The configuration names a quantisation; the estimate is of the same model in {dtype}.")
    if gpu and gpu.peak(dtype) is None:
        notes.append(f"{gpu.title} has no matrix unit for {dtype}: no time or energy is given.")
    if _experts(config):
        notes.append("Routing is taken as even: which experts run, and so their bytes, depends on the input.")
    if attention_of(config) == "eager":
        notes.append("This model has eager attention only: its causal count is the executed one.")
    if not any(row.kind in BLOCK_KINDS for row in of.rows):
        notes.append("No repeated blocks ran: this is no transformer that layerprof can tell apart.")
    return notes


def _experts(config: Any) -> bool:
    parts = (config, getattr(config, "text_config", None))
    return any(
        getattr(p, name, None) for p in parts for name in ("num_experts", "num_local_experts", "n_routed_experts")
    )
