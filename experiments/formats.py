"""What is measured of weights in each format and of each family, and the tables of it in docs/models.md.

    python experiments/formats.py [--families NAME,NAME] [--packages NAME,NAME] [--docs FILE] [--json FILE]

The bundled model and small random models of families (those of the tests, from transformers' own classes) are stored in
each format in place, and answer once under `layerprof.LayerProfiler`. A cell tells whether all matrix work is counted
(the FLOPs are those of the same model as it was), and which part of the weights' bytes its blocks read. Minutes on two
cores; a format whose package is not installed has no figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from rows import ROOT, caption, machine, markdown, save, show
from torch import nn

import layerprof
from layerprof.records import BLOCK_KINDS, Run

FOR_FAMILIES = ("int8, weight only", "fp8, weight only", "int8 (LLM.int8)", "NF4", "int8", "int4")
"""Formats that families are stored in; their small models have widths that others do not divide."""
PACKAGES = ("torch", "transformers", "torchao", "bitsandbytes", "optimum-quanto", "compressed-tensors", "hqq")
FAMILIES = (
    *("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "llava", "llava_next", "llava_onevision"),
    *("internvl", "idefics3", "smolvlm", "paligemma", "gemma3", "mllama", "llama4", "florence2", "blip2"),
    *("llama", "mixtral", "zamba2", "t5", "gpt2", "clip_vision", "siglip_vision", "vit"),
)
NEW_TOKENS = 3
START, END = "<!-- table: {} -->", "<!-- end -->"


@dataclass(frozen=True)
class Format:
    """A way to store weights: the package, what it needs to be imported, and what stores a model's weights in place."""

    name: str
    package: str
    module: str
    store: Callable[[nn.Module], None]


@dataclass(frozen=True)
class Cell:
    """One model in one format; `error` where it could not be stored or did not run."""

    family: str
    package: str
    format: str
    vision: int = 0
    language: int = 0
    flops: int | None = None
    weights: int | None = None
    weights_dtype: str = ""
    not_counted: tuple[str, ...] = ()
    balanced: bool = False
    error: str = ""


# --- formats ----------------------------------------------------------------------------------------------------


def _torchao(name: str) -> Callable[[nn.Module], None]:
    def store(model: nn.Module) -> None:
        from torchao import quantization

        quantization.quantize_(model, getattr(quantization, name)(), filter_fn=_stored)

    return store


def _bitsandbytes(kind: str, *, nested: bool = False) -> Callable[[nn.Module], None]:
    def replaced(part: nn.Linear) -> nn.Module:
        import bitsandbytes as bnb

        shape, bias = (part.in_features, part.out_features), part.bias is not None
        weight = part.weight.data
        if kind == "int8":
            made = bnb.nn.Linear8bitLt(*shape, bias=bias, has_fp16_weights=False)
            made.weight = bnb.nn.Int8Params(weight.half(), requires_grad=False, has_fp16_weights=False)
        else:
            made = bnb.nn.Linear4bit(*shape, bias=bias, compute_dtype=weight.dtype, quant_type=kind)
            made.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type=kind, compress_statistics=nested)
        made.bias = part.bias
        return made.to("cpu")

    return lambda model: _replace(model, replaced)


def _hqq(bits: int) -> Callable[[nn.Module], None]:
    def replaced(part: nn.Linear) -> nn.Module:
        from hqq.core import quantize

        config = quantize.BaseQuantizeConfig(nbits=bits, group_size=64)
        made: nn.Module = quantize.HQQLinear(part, config, compute_dtype=part.weight.dtype, device="cpu")
        return made

    return lambda model: _replace(model, replaced)


def _quanto(name: str) -> Callable[[nn.Module], None]:
    def store(model: nn.Module) -> None:
        from optimum import quanto

        left = [path for path, part in model.named_modules() if isinstance(part, nn.Linear) and not _stored(part, path)]
        quanto.quantize(model, weights=getattr(quanto, name), exclude=left)
        quanto.freeze(model)

    return store


def _stored(part: nn.Module, path: str) -> bool:
    """Tell whether a module is stored in another format: plain linear layers are, but for the output head."""
    return type(part) is nn.Linear and not path.endswith("lm_head")


def _replace(model: nn.Module, replaced: Callable[[nn.Linear], nn.Module]) -> None:
    for path, part in list(model.named_modules()):
        if _stored(part, path):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, replaced(part))  # type: ignore[arg-type]  # `_stored` has told


FORMATS = (
    Format("int8, weight only", "torchao", "torchao", _torchao("Int8WeightOnlyConfig")),
    Format("int8, activations too", "torchao", "torchao", _torchao("Int8DynamicActivationInt8WeightConfig")),
    Format("fp8, weight only", "torchao", "torchao", _torchao("Float8WeightOnlyConfig")),
    Format("int8 (LLM.int8)", "bitsandbytes", "bitsandbytes", _bitsandbytes("int8")),
    Format("NF4", "bitsandbytes", "bitsandbytes", _bitsandbytes("nf4")),
    Format("NF4, nested", "bitsandbytes", "bitsandbytes", _bitsandbytes("nf4", nested=True)),
    Format("FP4", "bitsandbytes", "bitsandbytes", _bitsandbytes("fp4")),
    Format("int8", "quanto", "optimum.quanto", _quanto("qint8")),
    Format("int4", "quanto", "optimum.quanto", _quanto("qint4")),
    Format("fp8", "quanto", "optimum.quanto", _quanto("qfloat8")),
    Format("int8", "hqq", "hqq", _hqq(8)),
    Format("int4", "hqq", "hqq", _hqq(4)),
)
AS_IT_IS = Format("as it is", "", "torch", lambda model: None)


# --- measuring --------------------------------------------------------------------------------------------------


def cells(family: str, formats: tuple[Format, ...]) -> Iterator[Cell]:
    """Yield a model of a family in each of the formats, one after another."""
    for chosen in (AS_IT_IS, *formats):
        if importlib.util.find_spec(chosen.module.partition(".")[0]) is None:
            yield Cell(family, chosen.package, chosen.name, error="not installed")
            continue
        try:
            yield _measured(family, chosen)
        except Exception as error:  # each package has its own ways of refusing
            yield Cell(
                family,
                chosen.package,
                chosen.name,
                error=f"{type(error).__name__}: {' '.join(str(error).split())[:160]}",
            )


def _measured(family: str, chosen: Format) -> Cell:
    model, answer = _bundled() if family == "bundled" else _family(family)
    chosen.store(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.no_grad(), layerprof.LayerProfiler(model, layers="all") as profiler:
            answer(model)
    run: Run = profiler.run
    blocks = [row for row in run.layers if row.kind in BLOCK_KINDS]
    column = run.ledger.flops
    formats = dict.fromkeys(row.weights_dtype for row in blocks if row.weights_dtype)
    return Cell(
        family,
        chosen.package,
        chosen.name,
        vision=len({row.name for row in blocks if row.tower == "vision"}),
        language=len({row.name for row in blocks if row.tower == "language"}),
        flops=run.totals.flops,
        weights=sum(row.bytes_weights or 0 for row in blocks),
        weights_dtype=", ".join(formats),
        not_counted=tuple(column.not_counted),
        balanced=column.residual == 0,
    )


def _bundled() -> tuple[Any, Callable[[Any], Any]]:
    """Return the bundled model in bf16 and what lets it answer about one picture of 224 pixels a side."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    from layerprof.demo import MODEL_FOLDER, tasks

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(str(MODEL_FOLDER), dtype=torch.bfloat16).eval()
    processor = AutoProcessor.from_pretrained(str(MODEL_FOLDER))
    row = next(tasks.rows("textvqa", 1))
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["question"]}]}]
    text = processor.apply_chat_template(asked, add_generation_prompt=True)
    made = processor(text=[text], images=[row["image"].resize((224, 224))], return_tensors="pt")
    inputs = made.to("cpu", torch.bfloat16)
    tokens = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    return model, lambda it: it.generate(**inputs, **tokens)


def _family(name: str) -> tuple[Any, Callable[[Any], Any]]:
    from families import build, run

    family = build(name, "sdpa" if _takes_sdpa(name) else "eager")
    return family.model, lambda it: run(family, NEW_TOKENS)


def _takes_sdpa(name: str) -> bool:
    from families import build

    try:
        build(name, "sdpa")
    except ValueError:
        return False
    return True


# --- tables -----------------------------------------------------------------------------------------------------


def format_rows(found: list[Cell]) -> list[tuple[str, ...]]:
    """Return a row for each format of one model; the first is the model as it is."""
    first = found[0]
    return [
        (
            cell.package or "as it is",
            cell.format if cell is not first else "",
            cell.error or cell.weights_dtype,
            "" if cell.error else f"{cell.weights or 0:,}",
            _part(cell, first),
            "" if cell.error else _work(cell, first),
        )
        for cell in found
    ]


def family_rows(found: dict[str, list[Cell]]) -> list[tuple[str, ...]]:
    """Return a row for each family: its blocks, and a cell for each format."""
    return [
        (
            name,
            f"{cells[0].vision} + {cells[0].language}",
            *(_cell(cell, cells[0]) for cell in cells),
        )
        for name, cells in found.items()
    ]


def _cell(cell: Cell, first: Cell) -> str:
    if cell.error:
        return cell.error.partition(":")[0]
    told = _work(cell, first)
    return told if cell is first else f"{told}; {_part(cell, first)}"


def _part(cell: Cell, first: Cell) -> str:
    return f"{cell.weights / first.weights:.2f} x" if cell.weights and first.weights else ""


def _work(cell: Cell, first: Cell) -> str:
    """Say whether all matrix work is counted: the books close, and it is as much as that of the model as it was."""
    if cell.not_counted:
        return f"at least, without {', '.join(cell.not_counted)}"
    if not cell.balanced:
        return "books do not close"
    if cell.flops != first.flops:
        return f"{(cell.flops or 0) / (first.flops or 1):.3f} of the FLOPs"
    return "all"


FORMAT_HEADER = ("package", "format", "`weights_dtype`", "weights that blocks read, bytes", "of bf16", "matrix work")


def into(page: Path, tables: dict[str, list[tuple[str, ...]]], below: str) -> None:
    """Put the tables between their marks in a page. Raises SystemExit where a mark is missing."""
    text = page.read_text(encoding="utf-8")
    for key, rows in tables.items():
        start = START.format(key)
        if start not in text:
            raise SystemExit(f"{page} has no mark {start}")
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(END)
        text = f"{before}{start}\n\n{markdown(rows)}\n\n{below}\n\n{END}{after}"
    page.write_text(text, encoding="utf-8")


def main() -> int:
    """Measure, print, save, and put the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES), help="names, with commas between them")
    every = dict.fromkeys(one.package for one in FORMATS)
    parser.add_argument("--packages", default=",".join(every), help="those of the formats, with commas between them")
    parser.add_argument("--json", type=Path, help="write all figures")
    parser.add_argument("--docs", type=Path, help="put the tables into this page")
    options = parser.parse_args()
    formats = tuple(one for one in FORMATS if one.package in options.packages.split(","))
    bundled = list(cells("bundled", formats))
    names = [name for name in options.families.split(",") if name]
    some = tuple(one for one in formats if one.name in FOR_FAMILIES and one.package != "hqq")
    families = {name: list(cells(name, some)) for name in names}
    where = machine(*PACKAGES)
    header = ("family", "blocks", "as it is", *(f"{one.package} {one.name}" for one in some))
    tables = {
        "formats": [FORMAT_HEADER, *format_rows(bundled)],
        "families": [header, *family_rows(families)],
    }
    show("formats", "Formats of weights: the bundled model", tables["formats"][0], tables["formats"][1:], where)
    show("families", "Families in each format", tables["families"][0], tables["families"][1:], where)
    measured = [asdict(cell) for found in (bundled, *families.values()) for cell in found]
    save(options.json, {"machine": where, "cells": measured})
    if options.docs:
        into(options.docs if options.docs.is_absolute() else ROOT / options.docs, tables, caption(where))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
