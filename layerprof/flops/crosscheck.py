"""Our count beside fvcore, ptflops and torch's FlopCounterMode on the same inputs, and why they differ.

Ours is of `generate()` up to the first token. The peers are given what they can take, `model(**inputs)`: the same
prompt, but with the head on every position. Each runs as its documentation says; one that fails is a row that says how.
Values stand as the peers give them, in their own convention.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprof import registry
from layerprof.layers.find import find_layers
from layerprof.machine import internals
from layerprof.readings import Layer
from layerprof.records import Record

if TYPE_CHECKING:
    from torch import nn

OUTSIDE = "outside layers"
TOTAL = "total"


class Peer(Record):
    """A counter: what it calls its unit, and how it failed where it did."""

    name: str
    unit: str
    macs: bool
    failure: str | None = None


class CrossRow(Record):
    """One kind of layer, all its layers together: our FLOPs, the peers' figures and how each comes from ours.

    `flops_at_least` says that ours miss an operator; they are None where nothing was counted.
    """

    kind: str
    layers: int
    flops: int | None
    flops_at_least: bool = False
    attention_flops: int
    peers: dict[str, float | None]
    reasons: dict[str, str]


class CrossCheck(Record):
    """The table; `positions` is how many positions the peers' head scored for each one of ours."""

    peers: tuple[Peer, ...]
    rows: tuple[CrossRow, ...]
    positions: float

    def to_json(self) -> str:
        """Return the table as a JSON document."""
        return self.model_dump_json(indent=2)


@dataclass(frozen=True, slots=True)
class _Count:
    """A peer's figures by module name; `misses_attention` when the peer itself says so."""

    modules: Mapping[str, float]
    total: float
    misses_attention: bool = False


@dataclass(frozen=True, slots=True)
class OwnCount:
    """Our figures for one row: all FLOPs (`at_least` those), and the attention part of them."""

    kind: str
    flops: int
    attention: int
    at_least: bool = False


def crosscheck(model: nn.Module, inputs: Mapping[str, Any], layers: Sequence[Layer] | None = None) -> CrossCheck:
    """Count one prompt with every counter. `inputs` are the model's keyword inputs, on its device."""
    located = [x for x in (layers if layers is not None else find_layers(model)) if x.found]
    kinds = {layer.name: layer.kind for layer in located}
    flops, attention, missed = _ours(model, inputs, located)
    peers, counts = [], {}
    plain = _plain_inputs(model, inputs)
    for name, unit, macs, count in PEERS:
        failure, found = _attempt(count, model, plain)
        peers.append(Peer(name=name, unit=unit, macs=macs, failure=failure))
        if found is not None:
            counts[name] = _sorted_by_kind(found, kinds), found.misses_attention
    scored = plain.get("decoder_input_ids", plain.get("input_ids"))
    positions = float(scored.shape[1]) if scored is not None else 1.0
    more_head = int((positions - 1) * flops.get("lm_head", 0))
    rows = []
    for kind, own in flops.items():
        values = {peer.name: counts[peer.name][0].get(kind, 0.0) if peer.name in counts else None for peer in peers}
        if not own and kind not in missed and not any(values.values()):
            continue
        reasons = {}
        for peer in peers:
            value = values[peer.name]
            if value is None:
                continue
            by_kind, misses = counts[peer.name]
            full_head = by_kind.get("lm_head", 0.0) * (2 if peer.macs else 1) > flops.get("lm_head", 0)
            head = more_head if full_head and kind in ("lm_head", TOTAL) else 0
            mine = OwnCount(kind, own, attention.get(kind, 0), kind in missed)
            reasons[peer.name] = explain(value, mine, more_head=head, macs=peer.macs, misses_attention=misses)
        rows.append(
            CrossRow(
                kind=kind,
                layers=sum(layer.kind == kind for layer in located),
                flops=own if own or kind not in missed else None,
                flops_at_least=kind in missed,
                attention_flops=attention.get(kind, 0),
                peers=values,
                reasons=reasons,
            )
        )
    return CrossCheck(peers=tuple(peers), rows=tuple(rows), positions=positions)


def explain(value: float, own: OwnCount, *, more_head: int, macs: bool, misses_attention: bool) -> str:
    """Say how a peer's figure comes from ours.

    `more_head` is what the head costs on the positions that we do not score, where the peer scores them;
    `misses_attention` when the peer itself says that it does not know attention. What is left over is elementwise work
    and biases where it is small.
    """
    if own.at_least:
        return "ours misses an operator without a formula"
    if not value:
        return "not counted" if own.flops else ""
    if not own.flops:
        return "counted, but for no module" if own.kind == OUTSIDE else "elementwise"
    counted = value * (2 if macs else 1)
    base = own.flops + more_head
    missing = own.attention if misses_attention or counted < base - own.attention / 2 else 0
    share = (counted - base + missing) / base
    reasons = ["1 per multiply-accumulate"] if macs else []
    reasons += ["head on every position"] if more_head else []
    reasons += ["attention missing"] if missing else []
    if share:
        # Elementwise work and biases, where a peer counts them, are below 5 % of a transformer's matrix work.
        small = 0 < share <= 0.05
        reasons.append(f"plus {share:.2%} elementwise and bias" if small else f"{share:+.1%} unexplained")
    return ", ".join(reasons) or "equal"


def _sorted_by_kind(found: _Count, kinds: Mapping[str, str]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, kind in kinds.items():
        sums[kind] = sums.get(kind, 0.0) + found.modules.get(name, 0.0)
    return {**sums, OUTSIDE: max(found.total - sum(sums.values()), 0.0), TOTAL: found.total}


def _ours(
    model: nn.Module, inputs: Mapping[str, Any], layers: Sequence[Layer]
) -> tuple[dict[str, int], dict[str, int], set[str]]:
    """FLOPs, and the attention part of them, by kind with the rest and the total, of all up to the first token.

    The third are the kinds that miss operators.
    """
    import torch

    hook = registry.load(registry.SHAPES)(model, layers)
    with torch.no_grad(), hook, hook.batch(0, attention_mask=inputs.get("attention_mask")):
        generate = getattr(model, "generate", None)
        if generate is not None and "input_ids" in inputs:
            generate(**inputs, max_new_tokens=1, min_new_tokens=1, do_sample=False, disable_compile=True)
        else:
            model(**inputs)
    reading = hook.reading()
    kinds = {layer.name: layer.kind for layer in layers}
    flops: dict[str, int] = dict.fromkeys(kinds.values(), 0)
    attention = dict(flops)
    for (name, phase), work in reading.layers.items():
        flops[kinds[name]] += work.flops
        attention[kinds[name]] += hook.attention()[name, phase]
    flops[OUTSIDE] = reading.total_flops - sum(flops.values())
    flops[TOTAL], attention[TOTAL] = reading.total_flops, sum(attention.values())
    missed = {kinds.get(place, OUTSIDE) for place, *_ in reading.uncounted}
    return flops, attention, missed | ({TOTAL} if missed else set())


def _plain_inputs(model: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what `model(**inputs)` needs for the same work: a decoder behind an encoder is begun by hand."""
    config = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False) or "input_ids" not in inputs:
        return inputs
    return {**inputs, "decoder_input_ids": inputs["input_ids"][:, :1]}


def _attempt(
    count: Callable[[Any, Mapping[str, Any]], _Count], model: Any, inputs: Mapping[str, Any]
) -> tuple[str | None, _Count | None]:
    """Run a peer quietly; return how it failed, or what it counted."""
    import torch

    try:
        quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with torch.no_grad(), warnings.catch_warnings(), quiet[0], quiet[1]:
            warnings.simplefilter("ignore")
            return None, count(model, inputs)
    except Exception as error:  # whatever a peer raises is its result here
        first = (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__}: {first}"[:200], None


def _flop_counter(model: Any, inputs: Mapping[str, Any]) -> _Count:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        model(**inputs)
    root = type(model).__name__
    counts = {name: float(sum(ops.values())) for name, ops in counter.get_flop_counts().items()}
    named = {name.removeprefix(f"{root}."): value for name, value in counts.items()}
    return _Count(named, float(counter.get_total_flops()))


def _fvcore(model: Any, inputs: Mapping[str, Any]) -> _Count:
    import torch
    from fvcore.nn import FlopCountAnalysis

    names = [name for name, value in inputs.items() if isinstance(value, torch.Tensor)]

    class Positional(torch.nn.Module):
        """fvcore traces with positional inputs and wants tensors back."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            output = self.inner(**dict(zip(names, values, strict=True)), **beside)
            parts = output.to_tuple() if hasattr(output, "to_tuple") else output
            parts = parts if isinstance(parts, (tuple, list)) else (parts,)
            return tuple(part for part in parts if isinstance(part, torch.Tensor))

    beside = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(Positional(), tuple(inputs[name] for name in names))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    found = {name.removeprefix("inner."): float(value) for name, value in analysis.by_module().items()}
    return _Count(found, float(analysis.total()), any("attention" in op for op in analysis.unsupported_ops()))


def _ptflops(model: Any, inputs: Mapping[str, Any]) -> _Count:
    from ptflops import pytorch_engine as engine

    functional: list[float] = []
    before = set(vars(model))
    engine.add_flops_counting_methods(model)
    model.start_flops_count(ost=io.StringIO(), verbose=False, ignore_list=[])
    engine.patch_functional(functional)
    engine.patch_tensor_ops(functional)
    try:
        model(**inputs)
        own = {name: float(getattr(module, "__flops__", 0)) for name, module in model.named_modules()}
        total, _ = model.compute_average_flops_cost()
    finally:
        engine.unpatch_functional()
        engine.unpatch_tensor_ops()
        model.stop_flops_count()
        for name in set(vars(model)) - before:
            delattr(model, name)
    summed = {place: sum(v for n, v in own.items() if f"{n}.".startswith(f"{place}.")) for place in own}
    # It knows matmul, not the fused attention that torch offers.
    eager = internals.attention_of(getattr(model, "config", None)) == "eager"
    return _Count(summed, float(total) + sum(functional), misses_attention=not eager)


PEERS: tuple[tuple[str, str, bool, Callable[[Any, Mapping[str, Any]], _Count]], ...] = (
    ("FlopCounterMode", "FLOP", False, _flop_counter),
    ("fvcore", "flop", True, _fvcore),
    ("ptflops", "MAC", True, _ptflops),
)
