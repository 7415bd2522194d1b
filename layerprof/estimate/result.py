"""What an estimate says: a row a layer and phase, sums, memory, and the books of its FLOPs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from layerprof.machine.gpus import Bound
from layerprof.records import LedgerColumn, Phase, Record, Tower


class EstimateRow(Record):
    """One layer in one phase. `time_bound_s` is the least time on the device; `energy_estimate_j` that at its power.

    `tokens_per_call` and `kv_per_call` are those of a run's rows (`records.LayerRow`): means over calls, None where a
    layer has none.

    `memory_*` and `weights_bytes` are what the memory pass of a run on a CPU would read (`records.LayerRow`).

    `weights_dtype` is the format of its weights where they are stored as codes; `*_unquantized` is then what the layer
    has in the model as it is. All None in an estimate of that.

    `uncounted` are the calls of operators that may do matrix work and have no formula. Where there are any, FLOPs and
    the time are lower bounds (FLOPs None where nothing was counted), and what needs all of them is None.
    """

    name: str
    tower: Tower
    kind: str
    index: int
    phase: Phase
    calls: int
    flops: int | None
    flops_causal: int | None
    bytes: int
    bytes_weights: int
    bytes_activations: int
    bytes_kv: int
    tokens_per_call: float | None = None
    kv_per_call: float | None = None
    memory_peak_bytes: int | None = None
    memory_kept_bytes: int | None = None
    memory_kept_kv_bytes: int | None = None
    weights_bytes: int | None = None
    weights_dtype: str | None = None
    flops_per_byte: float | None
    time_bound_s: float | None = None
    bound: Bound | None = None
    energy_estimate_j: float | None = None
    bytes_unquantized: int | None = None
    time_bound_unquantized_s: float | None = None
    bound_unquantized: Bound | None = None
    uncounted: dict[str, int] = Field(default_factory=dict)

    @property
    def at_least(self) -> bool:
        """Whether the FLOPs are a lower bound."""
        return bool(self.uncounted)


class EstimateTotals(Record):
    """Sums over rows, of one phase or of all; the times add, since layers run one after another.

    `flops_at_least` says that operators without a formula ran in a row.
    """

    flops: int | None
    flops_at_least: bool = False
    bytes: int
    time_bound_s: float | None = None
    energy_estimate_j: float | None = None


class EstimateMemory(Record):
    """Bytes needed at the end of the answer; `activations` is the most that one operator reads and writes.

    `peak` is the most that is held at once in all of it, None where that cannot be told here; it decides whether the
    answer `fits`.
    """

    weights: int
    kv_cache: int
    activations: int
    total: int
    peak: int | None = None
    device: int | None = None
    fits: bool | None = None


class Unquantized(Record):
    """Sums of the model as it is, beside those of the same model with its weights in another format."""

    totals: EstimateTotals
    phases: dict[Phase, EstimateTotals]
    memory: EstimateMemory


class Estimate(Record):
    """The whole estimate; `to_json` gives it with the field names of `run.json`.

    `quantization` is the format that weights are stored in, with what is left as it is; `unquantized` are the sums
    without it. None in an estimate of the model as it is.
    """

    format: Literal[1] = 1
    model: dict[str, Any]
    settings: dict[str, Any]
    gpu: dict[str, Any] | None
    totals: EstimateTotals
    phases: dict[Phase, EstimateTotals]
    memory: EstimateMemory
    quantization: dict[str, Any] | None = None
    unquantized: Unquantized | None = None
    layers: tuple[EstimateRow, ...]
    ledger: dict[Literal["flops", "memory_bytes"], LedgerColumn]
    uncounted_ops: dict[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """Return the estimate as a JSON document."""
        return self.model_dump_json(indent=2)
