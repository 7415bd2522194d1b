"""What a model's weights are stored as: the tensors with memory behind each, their numbers, their format.

Quantised weights lie in many ways: a subclass of Tensor that wraps others (torchao, quanto), a parameter with its
scales in an object beside it (bitsandbytes), codes and scales as parameters or buffers (compressed-tensors, GPTQ, AWQ)
or in a dictionary of the module (HQQ), an object of C++ (torch's dynamic quantisation). No package is known by name:
all are told by what holds what. What cannot be looked into says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from layerprof.machine.internals import modes_aside
from layerprof.machine.modules import is_uninitialised, told
from layerprof.machine.tensors import (
    attributes,
    dtype_format,
    held_in,
    holds_codes,
    inside,
    is_record,
    own_bytes,
    view_key,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

WIDE = ("int16", "int32")
"""Formats that hold positions as well as codes: they are codes only where scales or a linear layer say so."""
POSITIONS = "int64"
"""What nobody packs codes in: an index of positions may lie beside what is called a scale (Swin V2's `logit_scale`)."""
SCALES = re.compile(r"scale|zero|shift|absmax|scb", re.I)
NAMED = re.compile(r"nf4|nvfp4|mxfp\d|fp\d", re.I)
"""Formats in the name of a class or in a `quant_type`, which bits alone do not tell."""
SIDES = (("in_features", "out_features"), ("infeatures", "outfeatures"), ("num_embeddings", "embedding_dim"))
BITS = ("bits", "w_bit", "nbits", "wbits")
QUANTISER = 8
"""Bytes of the scale and the zero point of a whole matrix, 4 each."""
LINEAR = "quantized.LinearPackedParamsBase"
"""torch's name for the object of C++ in which a linear layer's matrix is packed, in 8 bits or in 16."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One weight as it is stored: `tensors` are those with memory, `numbers` how many it stands for.

    `packed` are bytes in an object that shows a copy of what it holds and no tensor. `unseen` is the class of what does
    not show its memory: `tensors` and `packed` are then what could be found of it. `weight` says that the numbers are
    parameters of the model, `quantised` that they are stored as codes.
    """

    format: str
    tensors: tuple[Tensor, ...]
    numbers: int
    packed: int = 0
    unseen: str = ""
    weight: bool = True
    quantised: bool = False

    @property
    def codes(self) -> Tensor | None:
        """The tensor that holds the codes of a quantised weight: the largest; None of others."""
        return max(self.tensors, key=own_bytes) if self.quantised and self.tensors else None

    @property
    def bytes(self) -> int:
        """All that is stored, each piece of memory once."""
        return self.packed + sum({view_key(tensor): own_bytes(tensor) for tensor in self.tensors}.values())


# --- a module with its parts ------------------------------------------------------------------------------------


def weights(module: nn.Module) -> Iterator[Stored]:
    """Yield the weights of a module with all inside it, those that share their memory once."""
    seen: set[tuple[int, ...]] = set()
    for part in module.modules():
        for one in of_module(part):
            key = view_key(one.tensors[0]) if one.tensors else ()
            if not key or key not in seen:
                seen.add(key)
                yield one


def size(module: nn.Module) -> int:
    """Count the numbers in a module's weights, tied ones once; those of uninitialised ones are not known: none."""
    return sum(one.numbers for one in weights(module) if one.weight)


def format_of(module: nn.Module) -> str | None:
    """Return the formats that a module's weights are stored in, the one of most bytes first: `int8 + bf16`.

    Scales and zero points are part of the format of their codes. Buffers count only where there are no parameters and
    no quantised matrices. None for a module without any.
    """
    sizes: dict[bool, dict[str, int]] = {True: {}, False: {}}
    for one in weights(module):
        found = sizes[one.weight]
        found[one.format] = found.get(one.format, 0) + one.bytes
    found = sizes[True] or sizes[False]
    return " + ".join(sorted(found, key=lambda name: -found[name])) or None


def unseen(module: nn.Module) -> dict[str, int]:
    """Return, by class, how many numbers of a module's weights lie where nobody can look."""
    found: dict[str, int] = {}
    for one in weights(module):
        if one.unseen:
            found[one.unseen] = found.get(one.unseen, 0) + one.numbers
    return found


# --- what a module holds itself ---------------------------------------------------------------------------------


def of_module(module: nn.Module) -> tuple[Stored, ...]:
    """Return the weights that a module holds itself, not in its parts: parameters, buffers, and quantised matrices.

    What has no memory yet (lazy modules) is left out.
    """
    buffers = dict(module.named_buffers(recurse=False))
    held = dict(module.named_parameters(recurse=False)) | buffers
    own = {name: tensor for name, tensor in held.items() if not is_uninitialised(tensor)}
    may_be = [name for name in own if not _is_scale(name, own)]
    codes = [name for name in may_be if _is_code(module, own, own[name], buffer=name in buffers)]
    packed = tuple(_packed_in(module))
    if not codes and not packed:
        return tuple(
            Stored(dtype_format(tensor), (tensor,), tensor.numel(), weight=name in may_be and name not in buffers)
            for name, tensor in own.items()
        )
    return (*packed, *_quantised(module, own, codes))


def _is_scale(name: str, own: Mapping[str, Tensor]) -> bool:
    """Tell whether a parameter only says how to read another, or inputs and outputs, by its name."""
    whose = (*(f"{other}_" for other in own), "input_", "output_")
    return bool(SCALES.search(name) or name.endswith(("_shape", "_g_idx"))) and name.startswith(whose)


def _is_code(module: nn.Module, own: Mapping[str, Tensor], tensor: Tensor, *, buffer: bool) -> bool:
    """Tell whether a parameter or buffer holds codes: in a subclass, or as a matrix of a type made for them.

    Buffers of such types may be masks or positions, and so may parameters of wide ones: those are codes beside scales,
    and where the module tells the size of a matrix.
    """
    if _knows_itself(tensor):
        return True
    if tensor.ndim < 2 or not holds_codes(tensor) or dtype_format(tensor) == POSITIONS:
        return False
    sure = not buffer and dtype_format(tensor) not in WIDE
    return sure or any(map(SCALES.search, own)) or bool(_sides(module) or _shape_beside(module))


def _knows_itself(tensor: Tensor) -> bool:
    """Tell whether a tensor wraps others, or has others beside it."""
    parts = inside(tensor)
    return len(parts) != 1 or parts[0] is not tensor


def _quantised(module: nn.Module, own: Mapping[str, Tensor], codes: Sequence[str]) -> Iterator[Stored]:
    """Yield a module's quantised weights, each with its scales, and its bias and the like apart.

    Codes that know their scales are weights of their own; loose ones are one weight with all that stands beside them.
    """
    wrapped = [own[name] for name in codes if _knows_itself(own[name])]
    loose = [own[name] for name in codes if not _knows_itself(own[name])]
    extra = _beside(module)
    alone = [*extra.pop("bias", ())]
    rest = [tensor for found in extra.values() for tensor in found]
    for name, tensor in own.items():
        if name not in codes:
            scale = tensor.numel() <= 1 or (name != "bias" and bool(loose or SCALES.search(name)))
            (rest if scale else alone).append(tensor)
    for tensor in wrapped:
        yield _wrapped(tensor, rest)
        rest = []
    if loose:
        yield _loose(module, loose, rest)
    yield from (Stored(dtype_format(tensor), (tensor,), tensor.numel()) for tensor in alone)


def _wrapped(tensor: Tensor, rest: Sequence[Tensor]) -> Stored:
    parts, name = inside(tensor), type(tensor).__name__
    numbers = next(filter(None, map(_shape_in, attributes(tensor).values())), 0) or tensor.numel()
    if not parts:
        return Stored(name, tuple(rest), numbers, unseen=name, quantised=True)
    kind = _format(parts, numbers, told(tensor, "quant_type"), told(told(tensor, "quant_state"), "quant_type"), name)
    # else plain numbers in a coat: distributed, or watched by somebody
    codes = holds_codes(max(parts, key=own_bytes)) or bool(NAMED.fullmatch(kind))
    return Stored(kind, _once((*parts, *rest)), numbers, quantised=codes)


def _loose(module: nn.Module, codes: Sequence[Tensor], rest: Sequence[Tensor]) -> Stored:
    largest = max(codes, key=own_bytes)
    numbers = _sides(module) or _shape_beside(module) or _by_bits(module, largest)
    kind = _format((largest,), numbers, type(module).__name__)
    return Stored(kind, _once((*codes, *rest)), numbers, quantised=True)


def _beside(module: nn.Module) -> dict[str, tuple[Tensor, ...]]:
    """Return the tensors in a module's own attributes, which are no parameters and no buffers.

    Positions (int64) are left out: kernels note there which of their last inputs stood out.
    """
    every = {name: tuple(held_in(value)) for name, value in _own_attributes(module).items()}
    found = {name: tuple(x for x in tensors if dtype_format(x) != POSITIONS) for name, tensors in every.items()}
    return {name: tensors for name, tensors in found.items() if tensors}


def _own_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes that a module has beside those of every module."""
    return {name: value for name, value in attributes(module).items() if name not in _usual()}


@cache
def _usual() -> frozenset[str]:
    from torch import nn

    return frozenset(vars(nn.Module()))


def _once(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple({view_key(tensor): tensor for tensor in tensors}.values())


# --- objects of C++ ---------------------------------------------------------------------------------------------


def _packed_in(module: nn.Module) -> Iterator[Stored]:
    import torch

    for value in attributes(module).values():
        if isinstance(value, torch.ScriptObject):
            yield of_packed(value, type(module).__name__)


def of_packed(value: Any, name: str = "") -> Stored:
    """Return what an object of C++ holds, by the copy of its matrix and bias that it gives; `name` is what to call it.

    Scales and zero points of channels count as the copy has them, those of a whole matrix as `QUANTISER`. Making the
    copy is no work of the model, which may be watched meanwhile.
    """
    with modes_aside():
        parts = _once(_copy_of(value))
        packed = sum(own_bytes(part) + _quantiser(part) for part in parts)
    if not parts:
        return Stored(name, (), 0, unseen=name, quantised=True)
    largest = max(parts, key=lambda part: part.numel())
    numbers = sum(part.numel() for part in parts)
    return Stored(dtype_format(largest), (), numbers, packed=packed, quantised=holds_codes(largest))


def _copy_of(value: Any) -> list[Tensor]:
    """Return the tensors that an object of C++ gives, and those of the objects in it (a recurrent layer's matrices).

    torch's packed linear layer of plain numbers stores halves (`PackedLinearWeightFp16`) and unpacks them to floats.
    """
    for method in ("unpack", "__getstate__"):
        try:
            given = getattr(value, method)()
        except Exception:  # an object of any kind, which may have neither
            continue
        found = [*held_in(given), *(part for packed in _objects_in(given) for part in _copy_of(packed))]
        halves = method == "unpack" and LINEAR in str(told(value, "_type", str)())
        return [
            part.half() if halves and part.ndim == 2 and not part.is_quantized else part
            for part in found
            if part.numel()
        ]
    return []


def _objects_in(value: Any) -> Iterator[Any]:
    """Yield the objects of C++ in the tuples and lists of another's state."""
    import torch

    for part in value if isinstance(value, (list, tuple)) else ():
        if isinstance(part, torch.ScriptObject):
            yield part
        else:
            yield from _objects_in(part)


def _quantiser(tensor: Tensor) -> int:
    """Bytes of a quantised tensor's scales and zero points."""
    import torch

    if not tensor.is_quantized:
        return 0
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return QUANTISER
    return own_bytes(tensor.q_per_channel_scales()) + own_bytes(tensor.q_per_channel_zero_points())


# --- numbers and formats ----------------------------------------------------------------------------------------


def _sides(module: nn.Module) -> int:
    """Return how many numbers a linear layer's matrix or an embedding's table has; 0 where it does not tell."""
    for names in SIDES:
        if size := _product([told(module, name) for name in names]):
            return size
    return 0


def _shape_beside(module: nn.Module) -> int:
    """Return the size of a matrix by a shape in a dictionary or an object of its module; 0 where there is none."""
    return next(filter(None, map(_shape_in, _own_attributes(module).values())), 0)


def _shape_in(value: Any) -> int:
    shape = value.get("shape") if isinstance(value, dict) else told(value, "shape") if is_record(value) else None
    return _product(shape) if isinstance(shape, (tuple, list)) else 0


def _product(sizes: Sequence[Any]) -> int:
    return prod(sizes) if sizes and all(isinstance(size, int) for size in sizes) else 0


def _by_bits(module: nn.Module, codes: Tensor) -> int:
    """Return how many numbers codes stand for, by the bits that their module gives to each; one each without."""
    bits = next((found for name in BITS if isinstance(found := told(module, name), int) and found > 0), None)
    return own_bytes(codes) * 8 // bits if bits else codes.numel()


def _format(parts: Sequence[Tensor], numbers: int, *names: Any) -> str:
    """Return the name of a format: what the largest part is, by the bits that it has for each number."""
    largest = max(parts, key=own_bytes)
    kind = dtype_format(largest)
    bits = round(8 * own_bytes(largest) / numbers) if numbers else 0
    own = next((found.group().lower() for name in names if (found := NAMED.search(str(name or "")))), "")
    if own and 0 < bits < 8:
        return own  # whatever type lends its memory (`bnb_4bit_quant_storage`)
    if not holds_codes(largest) or kind.startswith("fp"):
        return kind
    if own and (bits < 8 or own.endswith("8")):
        return own
    return f"int{bits}" if 0 < bits <= 16 else kind
