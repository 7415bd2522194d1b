"""FLOPs of one prompt and one answer, side by side: nine counters against a formula written out by hand.

    python experiments/peers/flops.py [--device cpu|cuda] [--json FILE]

All count the bundled Qwen2.5-VL on one image and a question, under eager attention and under sdpa: a plain
`model(**inputs)`, whose head scores every position. Figures are FLOPs, 2 a multiply-accumulate; a tool that counts 1 is
doubled. `vision` is the prompt less one of the same length without an image, `decode` an answer of 8 tokens less one of
1, `layers` how many of the 13 layers have a row of their own that is within 1 % of the formula. Each tool runs in a
process of its own, three times; one that fails is a row that says why.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rows import machine, save, show

ATTENTION = ("eager", "sdpa")
TOKENS = 8
NEAR = 0.01
"""Relative error below which a layer's row counts as right."""


@dataclass(frozen=True)
class Truth:
    """FLOPs by the formula: of every layer in one prompt, and of all decode steps together."""

    layers: dict[str, int]
    decode: int

    @property
    def vision(self) -> int:
        """The vision tower with its merger."""
        return sum(flops for name, flops in self.layers.items() if name.startswith("model.visual"))

    @property
    def prompt(self) -> int:
        """One prompt, the head on every position."""
        return sum(self.layers.values())


def truth(config: Mapping[str, Any], side: int, positions: int, tokens: int) -> Truth:
    """Write the work out by hand: one image of side x side patches, a prompt of so many positions, batch 1.

    Every product is 2 x outputs x inner dimension. The side must be a whole number of windows, so that windows are
    equal. Norms, activations, softmax, rotary embedding and biases are elementwise: 0.
    """
    see, text = config["vision_config"], config["text_config"]
    patches, wide = side * side, see["hidden_size"]
    window = (see["window_size"] // see["patch_size"]) ** 2  # patches of one attention window
    if side % (see["window_size"] // see["patch_size"]):
        raise ValueError("the formula is for images of whole windows")
    flops = {"model.visual.patch_embed": 2 * patches * wide * 3 * see["temporal_patch_size"] * see["patch_size"] ** 2}
    for block in range(see["depth"]):
        keys = patches if block in see["fullatt_block_indexes"] else window
        projections = 2 * patches * wide * (3 * wide + wide)  # query, key and value; output
        scores_and_values = 2 * patches * keys * wide + 2 * patches * keys * wide  # all heads together are `wide`
        gated_mlp = 2 * patches * wide * 3 * see["intermediate_size"]
        flops[f"model.visual.blocks.{block}"] = projections + scores_and_values + gated_mlp
    joined = wide * see["spatial_merge_size"] ** 2
    merged = patches // see["spatial_merge_size"] ** 2
    flops["model.visual.merger"] = 2 * merged * joined * joined + 2 * merged * joined * see["out_hidden_size"]

    hidden, heads, groups = text["hidden_size"], text["num_attention_heads"], text["num_key_value_heads"]
    head = hidden // heads

    def layer(queries: int, keys: int) -> int:
        query_and_output = 2 * (2 * queries * hidden * heads * head)
        key_and_value = 2 * (2 * queries * hidden * groups * head)
        scores_and_values = 2 * (2 * heads * queries * keys * head)
        return (
            query_and_output + key_and_value + scores_and_values + 3 * 2 * queries * hidden * text["intermediate_size"]
        )

    depth, one_head = text["num_hidden_layers"], 2 * hidden * text["vocab_size"]
    for number in range(depth):
        flops[f"model.language_model.layers.{number}"] = layer(positions, positions)
    flops["lm_head"] = positions * one_head
    # The first token comes from the prompt; step t is one query against the prompt, t - 1 new keys and its own.
    decode = sum(depth * layer(1, positions + step) + one_head for step in range(1, tokens))
    return Truth(flops, decode)


@dataclass
class Count:
    """What a tool counted, in FLOPs, with rows by module name where it gives any."""

    total: float
    modules: dict[str, float] = field(default_factory=dict)


Inputs = dict[str, Any]


def perform(model: Any, inputs: Inputs, tokens: int) -> Any:
    """Answer in so many tokens; with none, call the model on the prompt."""
    from subject import answer

    return answer(model, inputs, tokens) if tokens else model(**inputs)


def layerprof(model: Any, inputs: Inputs, tokens: int) -> Count:
    """Layerprof with ShapesHook around the call, as its flops pass does."""
    from layerprof.hooks.shapes import ShapesHook

    from layerprof.layers.find import find_layers

    with ShapesHook(model, find_layers(model)) as hook, hook.batch(0):
        perform(model, inputs, tokens)
    reading, modules = hook.reading(), {}
    for (name, _), work in reading.layers.items():
        modules[name] = modules.get(name, 0.0) + work.flops
    return Count(reading.total_flops, modules)


def flop_counter(model: Any, inputs: Inputs, tokens: int) -> Count:
    """torch.utils.flop_counter.FlopCounterMode."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        perform(model, inputs, tokens)
    root = f"{type(model).__name__}."
    found = {name.removeprefix(root): float(sum(ops.values())) for name, ops in counter.get_flop_counts().items()}
    return Count(counter.get_total_flops(), found)


def deepspeed(model: Any, inputs: Inputs, tokens: int) -> Count:
    """DeepSpeed's flops profiler; it counts 2 a multiply-accumulate, and elementwise work."""
    from deepspeed.profiling.flops_profiler import FlopsProfiler
    from deepspeed.profiling.flops_profiler.profiler import get_module_flops

    profiler = FlopsProfiler(model)
    profiler.start_profile()
    try:
        perform(model, inputs, tokens)
        profiler.stop_profile()
        return Count(profiler.get_total_flops(), {n: float(get_module_flops(m)) for n, m in model.named_modules() if n})
    finally:
        profiler.end_profile()


def calflops(model: Any, inputs: Inputs, tokens: int) -> Count:
    """calflops, through its one function; it calls the model itself, with generate() where asked."""
    from calflops import calculate_flops

    # Its keyword inputs must all be tensors; the length of an answer is set where generate() looks for it.
    for name in ("max_new_tokens", "min_new_tokens"):
        setattr(model.generation_config, name, tokens or None)
    mode = "generate" if tokens else "forward"
    quiet = {"print_results": False, "print_detailed": False, "output_as_string": False}
    flops, _, _ = calculate_flops(model=model, kwargs=dict(inputs), forward_mode=mode, **quiet)
    return Count(float(flops))


def fvcore(model: Any, inputs: Inputs, tokens: int) -> Count:
    """fvcore, which traces: tensors in order, tensors back; 1 a multiply-accumulate, doubled here."""
    import torch
    from fvcore.nn import FlopCountAnalysis

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *values: Any) -> Any:
            return self.inner(**dict(zip(inputs, values, strict=True)), use_cache=False).logits

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(Positional(), tuple(inputs.values()))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    found = {name.removeprefix("inner."): 2.0 * value for name, value in analysis.by_module().items()}
    return Count(2.0 * analysis.total(), found)


def ptflops(backend: str) -> Callable[[Any, Inputs, int], Count]:
    """Ptflops with one of its backends; 1 a multiply-accumulate, doubled here."""

    def count(model: Any, inputs: Inputs, tokens: int) -> Count:
        from ptflops import get_model_complexity_info

        quiet = {"as_strings": False, "print_per_layer_stat": False}
        macs, _ = get_model_complexity_info(
            model, (1,), input_constructor=lambda _: inputs, backend=backend, ost=io.StringIO(), **quiet
        )
        if macs is None:
            raise RuntimeError("it gave no figure")
        return Count(2.0 * macs)

    return count


def torchinfo(model: Any, inputs: Inputs, tokens: int) -> Count:
    """Torchinfo's mult-adds, doubled here."""
    from torchinfo import summary

    found = summary(model, input_data=dict(inputs), verbose=0, depth=9)
    names = {id(module): name for name, module in model.named_modules()}
    leaves = [(names[info.layer_id], info.macs) for info in found.summary_list if info.is_leaf_layer]
    rows = {names[info.layer_id] for info in found.summary_list}
    sums = {row: 2.0 * sum(macs for leaf, macs in leaves if f"{leaf}.".startswith(f"{row}.")) for row in rows}
    return Count(2.0 * found.total_mult_adds, sums)


def profiler(model: Any, inputs: Inputs, tokens: int) -> Count:
    """torch.profiler with_flops: by operator, for no module."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], with_flops=True, record_shapes=True) as found:
        perform(model, inputs, tokens)
    return Count(float(sum(event.flops or 0 for event in found.key_averages())))


@dataclass(frozen=True)
class Tool:
    """A counter: how it runs, what a multiply-accumulate is to it, whether it can stand around generate(), its rows."""

    count: Callable[[Any, Inputs, int], Count]
    unit: str
    generates: bool
    rows: str = "gives no rows"


TOOLS: dict[str, Tool] = {
    "layerprof": Tool(layerprof, "2", True),
    "FlopCounterMode": Tool(flop_counter, "2", True),
    "DeepSpeed": Tool(deepspeed, "2", True),
    "calflops": Tool(calflops, "2", True, "prints rows only"),
    "fvcore": Tool(fvcore, "1, doubled", False),
    "ptflops": Tool(ptflops("pytorch"), "1, doubled", False, "prints rows only"),
    "ptflops aten": Tool(ptflops("aten"), "1, doubled", False, "prints rows only"),
    "torchinfo": Tool(torchinfo, "1, doubled", False),
    "torch.profiler": Tool(profiler, "2", True),
}


def attempt(count: Callable[[], Any]) -> Any:
    """Return what was counted, or the error as text."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return count()
    except Exception as error:  # whatever a tool raises is its result here
        return f"{type(error).__name__}: {error}".strip().splitlines()[0][:90]


def measure(name: str, attention: str, device: str) -> dict[str, Any]:
    """Return one tool's figures: prompt three times, prompt without image, answers of one and of eight tokens."""
    import torch
    from subject import IMAGE_SIDE, subject, words_only

    model, inputs = subject(device, attention)
    tool = TOOLS[name]

    def counted(given: Inputs, tokens: int) -> Count | str:
        if tokens and not tool.generates:
            return "takes one forward call"
        return attempt(lambda: tool.count(model, given, tokens))

    with torch.no_grad():
        prompts = [counted(inputs, 0) for _ in range(3)]
        others = [counted(words_only(inputs), 0), counted(inputs, 1), counted(inputs, TOKENS)]
    right = truth(model.config.to_dict(), IMAGE_SIDE, inputs["input_ids"].shape[1], TOKENS)
    rows = prompts[0].modules if isinstance(prompts[0], Count) else {}
    totals = [one.total if isinstance(one, Count) else one for one in (*prompts, *others)]
    return {
        "truth": {"prompt": right.prompt, "vision": right.vision, "decode": right.decode},
        "prompt": totals[:3],
        "words": totals[3],
        "answers": totals[4:],
        "layers_right": sum(near(rows[layer], flops) for layer, flops in right.layers.items() if layer in rows),
        "layers_named": sum(layer in rows for layer in right.layers),
        "layers": len(right.layers),
    }


def near(value: float, flops: int) -> bool:
    """Tell whether a layer's figure is right."""
    return abs(value / flops - 1) < NEAR


def apart(name: str, device: str) -> dict[str, Any]:
    """Measure under both kinds of attention in a process of its own: several tools patch torch and leave it patched."""
    command = [sys.executable, __file__, "--tool", name, "--device", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        return {kind: {"error": "not done after 300 s"} for kind in ATTENTION}
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["failed"])[-1][:90]
        return {kind: {"error": why} for kind in ATTENTION}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


HEADER = ("tool", "per MAC", "prompt, MFLOP", "error", "vision", "decode", "three runs", "layers right")


def cells(name: str, found: dict[str, Any]) -> list[str]:
    """Return a tool's row of the table."""
    reason = found.get("error") or next((x for x in found["prompt"] if isinstance(x, str)), "")
    if reason:
        return [name, TOOLS[name].unit, "did not run", reason, "", "", "", ""]
    prompt, right = found["prompt"], found["truth"]
    agree = "agree" if len(set(prompt)) == 1 else f"differ by {max(prompt) / min(prompt) - 1:.1%}"
    return [
        name,
        TOOLS[name].unit,
        f"{prompt[0] / 1e6:.3f}",
        error(prompt[0], right["prompt"]),
        difference(prompt[0], found["words"], right["vision"]),
        difference(found["answers"][1], found["answers"][0], right["decode"]),
        agree,
        f"{found['layers_right']} of {found['layers']}" if found["layers_named"] else TOOLS[name].rows,
    ]


def error(value: float, right: float) -> str:
    """Return the relative error; 0 only where the figures are the same."""
    return "0" if value == right else f"{value / right - 1:+.2%}"


def difference(more: float | str, less: float | str, right: float) -> str:
    """Return the error of a difference of two counts, or why there is none."""
    if isinstance(more, str) or isinstance(less, str):
        return more if isinstance(more, str) else str(less)
    return error(more - less, right)


def main() -> None:
    """Count with every tool, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tool", choices=TOOLS)
    options = parser.parse_args()
    if options.tool:
        print(json.dumps({kind: measure(options.tool, kind, options.device) for kind in ATTENTION}))
        return
    where = machine("layerprof", "torch", "transformers", "deepspeed", "calflops", "fvcore", "ptflops", "torchinfo")
    found = {name: apart(name, options.device) for name in TOOLS}
    for attention in ATTENTION:
        right = next((one[attention]["truth"] for one in found.values() if "truth" in one[attention]), None)
        rows = [cells(name, one[attention]) for name, one in found.items()]
        if right is not None:
            rows.insert(0, ["formula", "2", f"{right['prompt'] / 1e6:.3f}", "", "", "", "", ""])
        show(f"flops-{attention}", f"FLOPs under {attention} attention", HEADER, rows, where)
    save(options.json, {"machine": where, "found": found})


if __name__ == "__main__":
    main()
