"""Weights stored in another format, in a live model: stored so in place, and read back from what is there."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from layerprof.machine import environment, stored
from layerprof.models.quantization import SHOWN, StoragePlan, torchao_config

if TYPE_CHECKING:
    from torch import nn

    from layerprof.models.published import Published

SUBCLASSES = {"torchao": "torchao", "optimum": "optimum-quanto", "bitsandbytes": "bitsandbytes"}
"""Where a package's classes of weights live, and the package's name in the index."""
PACKED_ROWS = 32
"""Rows that bitsandbytes packs together for a CPU."""
TALKATIVE = ("bitsandbytes", "torch.utils._pytree", "torch.utils.cpp_extension", "compressed_tensors", "torchao")
"""Loggers that speak of kernels and enumerations while these packages are imported."""


def store(model: nn.Module, plan: StoragePlan, name: str) -> None:
    """Store the weights of one of a plan's layers in its format, in place, on the device where they are."""
    with quiet():
        _BY_PACKAGE[plan.scheme.package](model, plan, name)


def _by_torchao(model: nn.Module, plan: StoragePlan, name: str) -> None:
    from torchao.quantization import quantize_

    quantize_(model.get_submodule(name), torchao_config(plan.scheme))


def _by_bitsandbytes(model: nn.Module, plan: StoragePlan, name: str) -> None:
    import importlib

    import torch

    bitsandbytes: Any = importlib.import_module("bitsandbytes")  # its annotations do not hold
    old: Any = model.get_submodule(name)
    with torch.device("meta"):
        new = bitsandbytes.nn.Linear4bit(
            old.in_features,
            old.out_features,
            old.bias is not None,
            old.weight.dtype,
            compress_statistics=False,
            quant_type=plan.scheme.format,
        )
    weight = bitsandbytes.nn.Params4bit(
        old.weight.data, requires_grad=False, compress_statistics=False, quant_type=plan.scheme.format, module=new
    )
    new.weight, new.bias = weight.to(old.weight.device), old.bias
    model.set_submodule(name, new)


def _by_quanto(model: nn.Module, plan: StoragePlan, name: str) -> None:
    from optimum import quanto

    new = quanto.QLinear.from_module(model.get_submodule(name), weights=getattr(quanto, f"q{plan.scheme.format}"))
    new.freeze()
    model.set_submodule(name, new)


_BY_PACKAGE: dict[str, Callable[[nn.Module, StoragePlan, str], None]] = {
    "torchao": _by_torchao,
    "bitsandbytes": _by_bitsandbytes,
    "optimum-quanto": _by_quanto,
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the packages log below errors, about faster kernels and enumerations of their own."""
    before = {name: logging.getLogger(name).level for name in TALKATIVE}
    for name in before:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


class _Once(logging.Filter):
    """Lets each message through once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a message is new."""
        message = record.getMessage()
        new = message not in self.seen
        self.seen.add(message)
        return new


def speak_once() -> None:
    """Have bitsandbytes say once, and not at each product, that its 8-bit products cast what they are given to fp16."""
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    if not any(isinstance(one, _Once) for one in logger.filters):
        logger.addFilter(_Once())


def keep_layout(model: nn.Module) -> None:
    """Have bitsandbytes run the 4-bit layers that it cannot repack for a CPU in the layout that they are stored in.

    At the first call on a CPU with AVX512-BF16 it packs rows by 32 and scales by columns
    (`bitsandbytes.functional._convert_weight_packed_for_cpu`), which ends in an error where 32 does not divide a
    matrix's rows, or the elements of a scale its columns; both are so in MLPs of known models (3420, 4304).
    """
    module: Any
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is None or not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        rows, columns = state.shape
        if rows % PACKED_ROWS or columns % state.blocksize:
            module.support_avx512bf16_for_cpu = False


# --- what is there ------------------------------------------------------------------------------------------------


def facts(model: nn.Module, asked: StoragePlan | Published) -> dict[str, Any]:
    """Return how a model's weights are stored, as a run keeps it, read off its modules.

    `layers` counts the modules whose weights are codes, `left` those with a matrix of ordinary numbers; the first of
    these are named. `layers` is 0 where nothing turned out to be stored in a format. `run_as` is the dtype that the
    layers are unpacked to before they run; None where the codes are what is run on.
    """
    coded, plain = survey(model)
    package = _package(model, coded) or asked.package
    return {
        "format": asked.format,
        "package": package,
        "package_version": environment.package_version(package),
        "scheme": asked.told,
        "layers": len(coded),
        "left": len(plain),
        "left_names": plain[:SHOWN],
        "run_as": None,
    }


def unpack(model: Any) -> None:
    """Unpack the weights of a compressed-tensors model now, which it would do itself when it is first called.

    So every walk is of the same model.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # its bars
        model.hf_quantizer.compressor.decompress_model(model)


def survey(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of the modules whose weights are codes, and of those with a matrix of ordinary numbers."""
    coded, plain = [], []
    for name, module in model.named_modules():
        if any(weight.quantised for weight in stored.of_module(module)):
            coded.append(name)
        elif any(weight.ndim > 1 and weight.is_floating_point() for weight in module.parameters(recurse=False)):
            plain.append(name)
    return coded, plain


def _package(model: nn.Module, coded: list[str]) -> str | None:
    """Return the package whose classes hold the codes, where they are somebody's own."""
    for name in coded[:1]:
        module = model.get_submodule(name)
        for thing in (*module.parameters(recurse=False), module):
            found = SUBCLASSES.get(type(thing).__module__.partition(".")[0])
            if found:
                return found
    return None
