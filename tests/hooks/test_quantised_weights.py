"""Weights of quantised layers as operators read them: on storages made by hand, whose bytes are known."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own documentation calls it so
from layerprof.hooks.allocation import LayerMemory
from layerprof.hooks.resident import by_layer
from layerprof.hooks.weights import Read, Weights
from quantised_storages import COLUMNS, GROUP, GROUPS, NUMBERS, ROWS, Awq, Gptq, Opaque, linear, wrapped
from torch import Tensor, nn

import layerprof
from layerprof.layers.find import find_layers
from layerprof.records import Run

BYTES_GPTQ = NUMBERS // 2 + GROUPS * ROWS // 2 + 2 * GROUPS * ROWS + 4 * COLUMNS
BYTES_AWQ = NUMBERS // 2 + GROUPS * ROWS // 2 + 2 * GROUPS * ROWS


class UnpackedGptq(Gptq):
    """A GPTQ layer that unpacks in torch's operators: codes are shifted out of an expanded view, eight at a time."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (..., columns) with what the codes stand for."""
        shifts = torch.arange(0, 32, 4, dtype=torch.int32)
        codes = (self.qweight.unsqueeze(1).expand(-1, 8, -1) >> shifts.view(1, -1, 1)) & 15
        zeros = (self.qzeros.unsqueeze(2).expand(-1, -1, 8) >> shifts) & 15
        order = self.g_idx.long()
        scales, zeros = self.scales[order], zeros.reshape(GROUPS, ROWS)[order]
        return x @ ((codes.reshape(COLUMNS, ROWS) - zeros) * scales) + self.bias


class UnpackedAwq(Awq):
    """An AWQ layer that unpacks in torch's operators."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (..., columns) with what the codes stand for."""
        shifts = torch.arange(0, 32, 4, dtype=torch.int32)
        codes = ((self.qweight.unsqueeze(-1) >> shifts) & 15).reshape(COLUMNS, ROWS)
        zeros = ((self.qzeros.unsqueeze(-1) >> shifts) & 15).reshape(GROUPS, ROWS)
        return x @ ((codes - zeros.repeat_interleave(GROUP, 0)) * self.scales.repeat_interleave(GROUP, 0))


class Blocks(nn.Module):
    """Two blocks: one of a quantised layer, one of an ordinary one."""

    def __init__(self, quantised: nn.Module, dtype: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(first, nn.Linear(ROWS, COLUMNS, bias=False, dtype=dtype))
            for first in (quantised, nn.Linear(COLUMNS, ROWS, bias=False, dtype=dtype))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Call one after the other."""
        for block in self.blocks:
            x = block(x)
        return x


def _run(quantised: nn.Module, dtype: torch.dtype = torch.float16) -> Run:
    model = Blocks(quantised, dtype)
    with torch.no_grad(), layerprof.LayerProfiler(model) as profiler:
        model(torch.ones(3, COLUMNS, dtype=dtype))
    return profiler.run


def test_gptq_in_torchs_operators_is_read_to_the_byte() -> None:
    """Codes, zero points, scales, the order of groups, and the bias: each once, although views of it were many."""
    row, plain = _run(UnpackedGptq()).layers
    assert row.bytes_weights == BYTES_GPTQ + 2 * ROWS + 2 * NUMBERS
    assert row.weights_dtype == "fp16 + int4"
    assert row.flops == plain.flops == 2 * 2 * 3 * NUMBERS
    assert plain.weights_dtype == "fp16"


def test_awq_in_torchs_operators_is_read_to_the_byte() -> None:
    """Codes, zero points and scales."""
    row, plain = _run(UnpackedAwq()).layers
    assert row.bytes_weights == BYTES_AWQ + 2 * NUMBERS
    assert row.flops == plain.flops


def test_a_subclass_is_read_as_what_it_wraps_and_counted_once() -> None:
    """Its product runs inside the subclass's own handler: bytes of codes and scales, and the work of one product."""
    row, plain = _run(linear(wrapped(), bias=False), torch.bfloat16).layers
    assert row.bytes_weights == NUMBERS + 2 * ROWS + 2 * NUMBERS
    assert row.flops == plain.flops == 2 * 2 * 3 * NUMBERS
    assert row.weights_dtype == "bf16 + int8"


def test_what_does_not_show_its_memory_makes_bytes_a_lower_bound() -> None:
    """It is named with its layer and its share in a warning, on the row and in the totals; nothing else is missing."""
    run = _run(linear(Opaque(ROWS, COLUMNS), bias=False), torch.bfloat16)
    row, plain = run.layers
    assert row.unseen_weights == {"Opaque": NUMBERS}
    assert (plain.unseen_weights, plain.bytes_weights) == ({}, 4 * NUMBERS)
    assert run.totals.bytes_at_least
    assert run.model["parameters"] == 4 * NUMBERS
    assert (
        "Bytes of weights are at least those given: 2,048 numbers (25.0 % of the parameters) in Opaque in blocks.0, "
        "which does not show its memory." in run.warnings
    )


def test_views_of_codes_read_a_share_of_the_weight() -> None:
    """A slice takes its share of scales, too; all of it takes all, once, whatever was read in parts before."""
    layer = linear(wrapped(), bias=False)
    weight: Any = layer.weight
    codes = weight.codes
    weights, seen = Weights(layer), Read()
    weights.read([codes[:8]], seen)
    assert sum(seen.values()) == (NUMBERS + 2 * ROWS) * 8 // ROWS
    weights.read([codes[8:]], seen)
    assert sum(seen.values()) == NUMBERS + 2 * ROWS
    weights.read([codes.t(), codes, codes[:4], layer.weight.detach()], seen)
    assert sum(seen.values()) == NUMBERS + 2 * ROWS


def test_rows_of_a_quantised_table_are_a_share_of_it() -> None:
    """An embedding that looks up 3 of 32 rows reads 3/32 of its codes and scales."""
    table = nn.Embedding(ROWS, COLUMNS)
    table.weight = nn.Parameter(wrapped(), requires_grad=False)
    weights, seen = Weights(table), Read()
    codes: Any = table.weight
    assert weights.gather(codes.codes, torch.zeros(3, COLUMNS, dtype=torch.int8), seen)
    assert sum(seen.values()) == (NUMBERS + 2 * ROWS) * 3 // ROWS


def test_a_weight_that_is_rewritten_in_its_first_call_is_found_where_it_lies_then() -> None:
    """Some packages lay out their codes anew for the processor: the old layout counts no more in that call."""

    class Laid(nn.Parameter):
        pass

    layer = nn.Linear(COLUMNS, ROWS, bias=False)
    layer.weight = Laid(torch.zeros(NUMBERS // 2, 1, dtype=torch.uint8), requires_grad=False)
    weights, seen = Weights(layer), Read()
    weights.read([layer.weight.detach()], seen)
    assert sum(seen.values()) == NUMBERS // 2
    layer.weight.data = torch.zeros(ROWS, COLUMNS // 2, dtype=torch.uint8)
    weights.read([layer.weight.detach()], seen)
    assert sum(seen.values()) == NUMBERS // 2


def test_memory_of_a_quantised_layer_is_all_that_it_is_stored_in() -> None:
    """Scales in a dictionary or an object beside the codes lie in memory as the codes do."""
    from quantised_storages import Hqq, four_bits

    nested = four_bits(nested=False)
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Sequential(Hqq()), nn.Sequential(nested)])})
    owned, _ = by_layer(model, find_layers(model))
    sizes = {name: sum(x.untyped_storage().nbytes() for x in held) for name, held in owned.items()}
    assert sum(sizes.values()) == (NUMBERS // 2 + 4 * NUMBERS // GROUP + 2 * ROWS) + (
        NUMBERS // 2 + 4 * NUMBERS // 64 + 64
    )


def test_looking_into_packed_halves_is_no_work_of_the_model() -> None:
    """The copy that an object of C++ gives is filled by a kernel that torch does not show; it is the observer's own."""
    quantise: Any = torch.ao.quantization.quantize_dynamic
    model = quantise(Blocks(nn.Linear(COLUMNS, ROWS), torch.float32), {nn.Linear}, torch.float16)
    with torch.no_grad(), layerprof.LayerProfiler(model) as prof:
        model(torch.ones(3, COLUMNS))
    assert [row.bytes_weights for row in prof.run.layers] == [4 * NUMBERS + 4 * ROWS, 4 * NUMBERS]
    assert not any("torch does not see" in warning for warning in prof.run.warnings)


def test_memory_of_torchs_packed_matrices_is_weights_of_their_layer() -> None:
    """They are no tensors, and lie there all the same: a byte a code, the bias in 4, the quantiser in 8."""
    quantise: Any = torch.ao.quantization.quantize_dynamic
    model = quantise(Blocks(nn.Linear(COLUMNS, ROWS), torch.float32), {nn.Linear}, torch.qint8)
    hook = LayerMemory(model, find_layers(model))
    with torch.no_grad(), hook, hook.batch(0):
        model(torch.ones(3, COLUMNS))
    reading = hook.reading()
    assert reading.weights == {"blocks.0": 2 * (NUMBERS + 8) + 4 * ROWS, "blocks.1": 2 * (NUMBERS + 8)}
    held = sum(reading.weights.values()) + sum(reading.at_peak.values()) + sum(reading.outside.values())
    assert reading.total == held + reading.before + reading.inputs + reading.kv_cache + reading.weights_elsewhere


def test_an_ordinary_product_of_expanded_weights_reads_them_once() -> None:
    """A weight that is expanded over a batch has the bytes of the weight."""
    layer = nn.Linear(COLUMNS, ROWS, bias=False)
    weights, seen = Weights(layer), Read()
    weights.read([layer.weight.expand(5, ROWS, COLUMNS)], seen)
    assert F.linear(torch.ones(1, COLUMNS), layer.weight).shape == (1, ROWS)
    assert sum(seen.values()) == 4 * NUMBERS
