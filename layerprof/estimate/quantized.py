"""An estimate's model with its weights in another format, and its figures beside those of the model as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerprof.errors import RequestError, did_you_mean
from layerprof.estimate.formats import LEAST_BITS
from layerprof.estimate.result import EstimateRow
from layerprof.layers.selector import select
from layerprof.readings import Layer
from layerprof.records import Phase

if TYPE_CHECKING:
    from layerprof.models.quantization import StoragePlan


def check(quantization: str, skip: str | None) -> None:
    """Raise RequestError for a format that there is none of, and for layers left out of nothing."""
    if quantization != "none" and quantization not in LEAST_BITS:
        known = ("none", *LEAST_BITS)
        raise RequestError(
            f"There is no format '{quantization}' of weights.",
            f"{did_you_mean(quantization, known)}Use one of {', '.join(known)}.",
        )
    if skip is not None and quantization == "none":
        raise RequestError(
            "--quantization-skip leaves layers out of a quantization, and none is asked for.",
            f"Give --quantization with it: {', '.join(LEAST_BITS)}.",
        )


def store(live: Any, found: Sequence[Layer], quantization: str, skip: str | None, dtype: str) -> StoragePlan:
    """Put a ghost model's weights into a format, as transformers would while it loads them; return what was done.

    No package is needed. `int4` is torchao's of a GPU. Raises RequestError where no layer would change, SelectorError
    for `skip`.
    """
    from layerprof.estimate import ghost_weights
    from layerprof.models import quantization as formats

    leave = [layer.name for layer in select(found, skip, live)] if skip else []
    plan = formats.planned(live, quantization, formats.package_of(quantization, "cuda"), dtype=dtype, leave=leave)
    sizes = {}
    for name in plan.taken:
        matrix = live.get_submodule(name).weight
        rows, columns = matrix.shape
        sizes[name] = plan.scheme.stored_bytes(rows, columns, matrix.element_size())
    ghost_weights.store(live, sizes, quantization)
    return plan


def formats_of(live: Any, found: Sequence[Layer], quantization: str) -> dict[str, str | None]:
    """Return what each layer's weights are stored as, the format of most bytes first: `int8 + fp16`."""
    from layerprof.machine import stored

    told: dict[str, str | None] = {}
    for layer in found:
        sizes: dict[str, int] = {}
        for one in stored.weights(live.get_submodule(layer.name)):
            name = quantization if one.quantised else one.format
            if one.weight:
                sizes[name] = sizes.get(name, 0) + one.bytes
        told[layer.name] = " + ".join(sorted(sizes, key=lambda name: -sizes[name])) or None
    return told


def described(plan: StoragePlan) -> dict[str, Any]:
    """Return what an estimate says of the format."""
    return {
        "format": plan.format,
        "package": plan.package,
        "told": plan.told,
        "linear_layers": len(plan.taken),
        "left": list(plan.left),
    }


def note(plan: StoragePlan, dtype: str) -> str:
    """Say what stays: the arithmetic, and what is left in the model's own dtype."""
    left = f"; as they are: {', '.join(plan.left[:3])}{' ...' if len(plan.left) > 3 else ''}" if plan.left else ""
    return (
        f"Weights of {len(plan.taken)} linear layers are stored as {plan.format} ({plan.told}) and multiplied in "
        f"{dtype}: FLOPs and their peak stay those of {dtype}, and unpacking costs nothing here{left}."
    )


def beside(rows: Sequence[EstimateRow], plain: Sequence[EstimateRow]) -> tuple[EstimateRow, ...]:
    """Return rows with the figures that they have in the model as it is."""
    before: Mapping[tuple[str, Phase], EstimateRow] = {(row.name, row.phase): row for row in plain}
    return tuple(
        row.model_copy(
            update={
                "bytes_unquantized": was.bytes,
                "time_bound_unquantized_s": was.time_bound_s,
                "bound_unquantized": was.bound,
            }
        )
        if (was := before.get((row.name, row.phase)))
        else row
        for row in rows
    )
