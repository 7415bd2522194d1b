"""What a server writes on each of its steps: how many requests and tokens, of prompts and of answers. Pure.

vLLM (`gpu_worker.py: annotate_profile`), SGLang (`profile_utils.py: build_step_span_name`) and ATOM annotate a step of
their scheduler with `record_function`, and vLLM and others the capture of a CUDA graph, with the rows that it is for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from layerprof.records import Phase
from layerprof.trace.attribution import RowPhase

_BEGINS = ("execute_", "step[", "prefill[", "decode[", "capture_")
# vLLM: execute_8192_context_9(sq8155sk8430..)_generation_37(sq37sk34489..); sq are new tokens, sk attended to.
# Without details: execute_context_9(8155)_generation_37(37), and before that execute_context_9_generation_37.
_EXECUTE = re.compile(
    r"execute(?:_(?P<tokens>\d+))?_context_(?P<context>\d+)(?:\((?P<inside_context>[^)]*)\))?"
    r"_generation_(?P<generation>\d+)(?:\((?P<inside_generation>[^)]*)\))?"
)
# SGLang: step[DECODE bs=32], step[EXTEND bs=15 toks=15360], step[MIXED bs=9 c=1 g=8 c_sq=700 g_sq=8];
# ATOM: decode[bs=117/128 tok=117 d=117], prefill[bs=2 tok=14721].
_STEP = re.compile(r"(?:step\[(?P<mode>\w+)|(?P<kind>prefill|decode)\[)(?P<rest>[^\]]*)\]")
_NUMBER = re.compile(r"(\w+)=(\d+)")
_NEW_TOKENS = re.compile(r"(?:sq)?(\d+)")
_CAPTURE = re.compile(r"capture_(?:graph_bs_)?(?P<size>\d+)(?:_\w+)?")
_SIZE_IN_FILE = re.compile(r"(?:^|_)bs_?(?P<size>\d+)(?=[_.])")

_MODES: dict[str, RowPhase] = {
    "DECODE": Phase.DECODE,
    "TARGET_VERIFY": Phase.DECODE,
    "VERIFY": Phase.DECODE,
    "DRAFT": Phase.DECODE,
    "DRAFT_LOOP": Phase.DECODE,
    "DLLM_EXTEND": Phase.DECODE,
    "DRAFT_EXTEND": Phase.DECODE,
    "DRAFT_EXTEND_V2": Phase.DECODE,
    "EXTEND": Phase.PREFILL,
    "PREFILL": Phase.PREFILL,
    "SPLIT_PREFILL": Phase.PREFILL,
    "MIXED": Phase.MIXED,
}


@dataclass(frozen=True, slots=True)
class Step:
    """What an annotation says of a step; None where it says nothing. `name` is the annotation without its details."""

    name: str
    phase: RowPhase
    requests: int | None = None
    context_requests: int | None = None
    context_tokens: int | None = None
    generation_requests: int | None = None
    generation_tokens: int | None = None

    @property
    def label(self) -> str:
        """Name of the row of all such steps."""
        return self.name.partition("[")[0].partition("_")[0]

    @property
    def rows(self) -> int | None:
        """Rows that a graph is captured for: tokens of the step, or its requests."""
        counts = [n for n in (self.context_tokens, self.generation_tokens) if n is not None]
        return sum(counts) if counts else self.requests


def is_servers(name: str) -> bool:
    """Whether an annotation is of a server's step, or of a capture."""
    return name.startswith(_BEGINS) and (parse(name) is not None or captured_size(name) is not None)


def parse(name: str) -> Step | None:
    """Read an annotation; None for one that is not of a step."""
    if found := _EXECUTE.match(name):
        return _execute(found)
    if found := _STEP.match(name):
        return _step(found)
    return None


def _execute(found: re.Match[str]) -> Step:
    context, generation = int(found["context"]), int(found["generation"])
    phase: RowPhase = Phase.MIXED if context and generation else Phase.PREFILL if context else None
    phase = phase or (Phase.DECODE if generation else None)
    tokens = f"_{found['tokens']}" if found["tokens"] else ""
    return Step(
        f"execute{tokens}_context_{context}_generation_{generation}",
        phase,
        requests=context + generation,
        context_requests=context,
        context_tokens=_tokens(found["inside_context"]),
        generation_requests=generation,
        generation_tokens=_tokens(found["inside_generation"]),
    )


def _step(found: re.Match[str]) -> Step:
    numbers = {key: int(value) for key, value in _NUMBER.findall(found["rest"])}
    mode = (found["mode"] or found["kind"]).upper()
    phase = _MODES.get(mode)
    requests, tokens = numbers.get("bs"), numbers.get("toks", numbers.get("tok"))
    context, generation = phase == Phase.PREFILL, phase == Phase.DECODE
    if tokens is None and mode == "DECODE":
        tokens = requests  # one each; with speculation, a step that verifies has another mode
    return Step(
        f"{found[0].partition(' ')[0]}]" if found["mode"] else found[0].partition("[")[0],
        phase,
        requests=requests,
        context_requests=numbers.get("c", requests if context else 0 if generation else None),
        context_tokens=numbers.get("c_sq", tokens if context else 0 if generation else None),
        generation_requests=numbers.get("g", requests if generation else 0 if context else None),
        generation_tokens=numbers.get("g_sq", tokens if generation else 0 if context else None),
    )


def _tokens(inside: str | None) -> int | None:
    found = _NEW_TOKENS.match(inside) if inside else None
    return int(found[1]) if found else None


def captured_size(name: str) -> int | None:
    """Return for how many rows an annotation around a capture says that it is, such as 32 of `capture_32_FULL`."""
    found = _CAPTURE.fullmatch(name)
    return int(found["size"]) if found else None


def size_in_file(name: str) -> int | None:
    """Return the rows that a capture's file is named for, as SGLang's `..._bs_32_rank0.json.gz`; None for no such."""
    found = _SIZE_IN_FILE.search(name)
    return int(found["size"]) if found else None
