"""Random weights at full size, without a second copy: for profiling an architecture whose weights are not at hand.

Time, memory and energy do not depend on what the weights are, as long as nothing overflows: matrices are normal with a
standard deviation of 0.02, biases 0, norms and rotary tables as their constructors made them. Answers mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Attention = str | dict[str, Any]
"""An attention implementation as transformers takes it, one or by the parts of a configuration."""
STD = 0.02
BLOCK = 8_388_593
"""Numbers drawn once and laid end to end from another place for each matrix: a prime, so no row repeats as it is."""

RANDOM_FILLS = frozenset(
    {"normal_", "uniform_", "trunc_normal_", "orthogonal_"}
    | {"kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"}
)


def build(auto_class: Any, config: Any, *, dtype: torch.dtype, device: str, attention: Attention, seed: int) -> Any:
    """Return a model of this configuration with seeded random weights, in `dtype` on `device`.

    Weights are allocated once, in their final format; the constructors' own initialisation, which would take minutes at
    this size, is skipped. Buffers (rotary frequencies) are what the constructors compute. Tied weights stay tied.
    """
    import torch

    with _untouched() as skipped, torch.device(device):
        model = auto_class.from_config(config, dtype=dtype, attn_implementation=attention)
    _fill(model, skipped, seed)
    return model.eval()


def parameter_count(auto_class: Any, config: Any, attention: Attention | None = None) -> int:
    """Return how many parameters a configuration has, tied ones once, without allocating them.

    Raises what transformers does where its model cannot be made, with this attention where one is given.
    """
    import copy

    import torch

    with torch.device("meta"):
        model = auto_class.from_config(
            copy.deepcopy(config), **({"attn_implementation": attention} if attention else {})
        )
    return sum(weight.numel() for weight in model.parameters())


@contextmanager
def _untouched() -> Iterator[list[torch.Tensor]]:
    """Skip random fills and yield the tensors they were asked for.

    The tensors are kept, so that none of their addresses is given to another one meanwhile.
    """
    from torch.overrides import TorchFunctionMode

    skipped: list[torch.Tensor] = []

    class Skip(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            # By name: transformers wraps torch's functions in ones of its own under the same names.
            if getattr(func, "__name__", "") in RANDOM_FILLS:
                tensor = args[0] if args else kwargs["tensor"]
                skipped.append(tensor)
                return tensor
            return func(*args, **(kwargs or {}))

    with Skip():
        yield skipped


def _fill(model: Any, skipped: list[torch.Tensor], seed: int) -> None:
    """Give every parameter that asked for random numbers its share of them: matrices normal, vectors zero."""
    import torch

    asked = {tensor.data_ptr() for tensor in skipped}
    block: torch.Tensor | None = None
    start = 0
    with torch.no_grad():
        for weight in model.parameters():
            if weight.data_ptr() not in asked:
                continue
            if weight.ndim < 2:
                weight.zero_()
                continue
            if block is None or block.dtype != weight.dtype:
                drawn = torch.randn(BLOCK, generator=torch.Generator().manual_seed(seed)) * STD
                block = drawn.to(device=weight.device, dtype=weight.dtype)
            start = _lay(weight, block, start)


def _lay(weight: torch.Tensor, block: torch.Tensor, start: int) -> int:
    """Copy the block over the weight as often as it goes, beginning at `start`; return where the next one begins."""
    flat = weight.detach().view(-1)
    place = 0
    while place < flat.numel():
        length = min(block.numel() - start, flat.numel() - place)
        flat[place : place + length].copy_(block[start : start + length])
        place += length
        start = (start + length) % block.numel()
    return start
