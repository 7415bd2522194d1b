"""Sequences of kernels whose layers are known, because they are put together layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from layerprof.trace.inference.repetition import Layers, Template, find

LLAMA = (
    "fused_add_rms_norm_kernel",
    "nvjet_hsh_128x64_2x1_v_qkv",
    "rotary_embedding_kernel",
    "reshape_and_cache_flash_kernel",
    "flash_fwd_splitkv_kernel",
    "nvjet_hsh_64x64_1x2_h_out",
    "fused_add_rms_norm_kernel",
    "nvjet_hsh_256x128_2x1_v_up",
    "act_and_mul_kernel",
    "nvjet_hsh_128x256_1x2_h_down",
)
"""A decoder layer as servers run it."""

ADD = "vectorized_elementwise_kernel<4, CUDAFunctor_add<float>>"
VIT = (
    "vectorized_layer_norm_kernel",
    "cutlass_tensorop_gemm_128x128_nn",
    "fmha_cutlassF_bf16_aligned",
    "cutlass_tensorop_gemm_64x64_nn",
    ADD,
    "vectorized_layer_norm_kernel",
    "cutlass_tensorop_gemm_128x256_nn",
    "GeluCUDAKernelImpl",
    "cutlass_tensorop_gemm_256x128_nn",
    ADD,
)
"""A vision block that runs eagerly."""

HEAD = ("vectorized_gather_kernel",)
TAIL = ("fused_add_rms_norm_kernel", "nvjet_hsh_320x128_lm_head", "reduce_kernel<ArgMaxOps>")


@dataclass(slots=True)
class Stretch:
    """Kernels, how long each took, and the (stack, layer) that each belongs to, None for those beside the layers."""

    names: list[str] = field(default_factory=list)
    ns: list[int] = field(default_factory=list)
    truth: list[tuple[int, int] | None] = field(default_factory=list)
    stacks: int = 0

    def rest(self, names: Sequence[str]) -> Stretch:
        """Append kernels that belong to no layer."""
        return self._add(names, None)

    def layers(self, layers: Sequence[Sequence[str]]) -> Stretch:
        """Append a stack of layers."""
        for number, names in enumerate(layers):
            self._add(names, (self.stacks, number))
        self.stacks += 1
        return self

    def _add(self, names: Sequence[str], owner: tuple[int, int] | None) -> Stretch:
        self.names += names
        self.ns += [1000] * len(names)
        self.truth += [owner] * len(names)
        return self

    def found(self, templates: Sequence[Template] = ()) -> tuple[Layers, ...]:
        """Return what `find` makes of it."""
        return find(self.names, self.ns, templates)

    def right(self, templates: Sequence[Template] = ()) -> float:
        """Return the share of kernels that `find` puts where they belong, into their layer or beside all of them."""
        told = owners(self.found(templates), len(self.names))
        return sum(a == b for a, b in zip(told, self.truth, strict=True)) / len(self.truth)


def owners(found: Sequence[Layers], kernels: int) -> list[tuple[int, int] | None]:
    """Return the (stack, layer) of each kernel."""
    owner: list[tuple[int, int] | None] = [None] * kernels
    for stack, layers in enumerate(found):
        for number, (start, end) in enumerate(zip(layers.starts, (*layers.starts[1:], layers.end), strict=True)):
            owner[start:end] = [(stack, number)] * (end - start)
    return owner


def but(layer: Sequence[str], change: dict[str, str | tuple[str, ...]]) -> tuple[str, ...]:
    """Return the layer with some kernels in the place of others (of none: an empty tuple)."""
    changed = (change.get(name, name) for name in layer)
    return tuple(name for one in changed for name in ((one,) if isinstance(one, str) else one))
