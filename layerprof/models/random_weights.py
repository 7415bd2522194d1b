"""Random weights at full size, without a second copy: for profiling an architecture whose weights are not at hand.

Time, memory and energy do not depend on what the weights are, as long as nothing overflows: matrices are normal with a
standard deviation of 0.02, biases 0, norms and rotary tables as their constructors made them. Answers mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from layerprof.machine.internals import storage_key
from layerprof.models import quantized

if TYPE_CHECKING:
    import torch

    from layerprof.models.quantization import StoragePlan

Attention = str | dict[str, Any]
"""An attention implementation as transformers takes it, one or by the parts of a configuration."""
STD = 0.02
BLOCK = 8_388_593
"""Numbers drawn once and laid end to end from another place for each matrix: a prime, so no row repeats as it is."""

RANDOM_FILLS = frozenset(
    {"normal_", "uniform_", "trunc_normal_", "orthogonal_"}
    | {"kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"}
)


def build(
    auto_class: Any,
    config: Any,
    *,
    dtype: torch.dtype,
    device: str,
    attention: Attention,
    seed: int,
    plan: StoragePlan | None = None,
) -> Any:
    """Return a model of this configuration with seeded random weights, in `dtype` on `device`.

    Weights are allocated once, in their final format; the constructors' own initialisation, which would take minutes at
    this size, is skipped. Buffers (rotary frequencies) are what the constructors compute. Tied weights stay tied. The
    weights that a plan stores in another format lie in memory as numbers one layer at a time.
    """
    import torch

    with _untouched(_shapes(auto_class, config, plan)) as skipped, torch.device(device):
        model = auto_class.from_config(config, dtype=dtype, attn_implementation=attention)
    _fill(model, skipped, seed, plan)
    return model.eval()


def skeleton(auto_class: Any, config: Any, attention: Attention | None = None) -> Any:
    """Return a model of a configuration whose weights have shapes and no memory.

    Raises what transformers does where its model cannot be made, with this attention where one is given.
    """
    import copy

    import torch

    with torch.device("meta"):
        return auto_class.from_config(
            copy.deepcopy(config), **({"attn_implementation": attention} if attention else {})
        )


def parameter_count(auto_class: Any, config: Any, attention: Attention | None = None) -> int:
    """Return how many parameters a configuration has, tied ones once. Raises as `skeleton`."""
    return sum(weight.numel() for weight in skeleton(auto_class, config, attention).parameters())


def _shapes(auto_class: Any, config: Any, plan: StoragePlan | None) -> frozenset[tuple[int, ...]]:
    """Return the shapes of the matrices that a plan stores in another format, and that no other weight has."""
    if plan is None:
        return frozenset()
    model = skeleton(auto_class, config)
    taken = {f"{name}.weight" for name in plan.taken}
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    return frozenset(shapes[name] for name in taken) - {shape for name, shape in shapes.items() if name not in taken}


@contextmanager
def _untouched(let_go: frozenset[tuple[int, ...]]) -> Iterator[list[torch.Tensor]]:
    """Skip random fills and yield the tensors they were asked for; those of a shape in `let_go` give up their memory.

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
                if tuple(tensor.shape) in let_go:
                    tensor.untyped_storage().resize_(0)
                return tensor
            return func(*args, **(kwargs or {}))

    with Skip():
        yield skipped


def _fill(model: Any, skipped: list[torch.Tensor], seed: int, plan: StoragePlan | None) -> None:
    """Give every parameter that asked for random numbers its share of them: matrices normal, vectors zero.

    What a plan stores in another format is stored so as soon as it is filled.
    """
    import torch

    asked = {storage_key(tensor) for tensor in skipped}
    taken, filled = set(plan.taken if plan else ()), set[int]()
    blocks = _Blocks(seed)
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            for weight in module.parameters(recurse=False):
                if id(weight) in filled or storage_key(weight) not in asked:
                    continue
                filled.add(id(weight))  # a tied weight once
                storage = weight.untyped_storage()
                if not storage.nbytes():
                    storage.resize_(weight.numel() * weight.element_size())
                blocks.fill(weight)
            if plan and name in taken:
                quantized.store(model, plan, name)


class _Blocks:
    """Random numbers drawn once, laid end to end over one weight after the other."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.block: torch.Tensor | None = None
        self.start = 0

    def fill(self, weight: torch.Tensor) -> None:
        """Fill a matrix with normal numbers, a vector with zeros."""
        import torch

        if weight.ndim < 2:
            weight.zero_()
            return
        if self.block is None or self.block.dtype != weight.dtype:
            drawn = torch.randn(BLOCK, generator=torch.Generator().manual_seed(self.seed)) * STD
            self.block = drawn.to(device=weight.device, dtype=weight.dtype)
        self.start = _lay(weight, self.block, self.start)


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
