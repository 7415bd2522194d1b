"""Four cells of optimum-benchmark, each in a process of its own; harness.py runs this script and reads its last line.

optimum-benchmark 0.6 was written for transformers 4. Two of its imports are supplied here so that it runs beside ours
at all: a class that transformers 5 dropped, and amdsmi, which Zeus installs and which fails without AMD's library. Its
processor code does not take a Qwen2.5-VL, so its cells are of the bundled model's language half, in random weights.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import tempfile
import time
import types
from typing import Any

from rows import ROOT

ANSWERS, TOKENS, PROMPT = 4, 4, 101


def supply() -> None:
    """Make its imports succeed. Processes that it spawns import this file again, so it is called at import."""
    stub = types.ModuleType("amdsmi")
    stub.__spec__ = importlib.machinery.ModuleSpec("amdsmi", None)
    sys.modules["amdsmi"] = stub
    # These exchange the transformers module for another object, so they come before the class is put into it.
    import accelerate  # noqa: F401
    import optimum_benchmark.import_utils  # noqa: F401
    import transformers.pipelines

    sys.modules["transformers"].SpecialTokensMixin = transformers.PreTrainedTokenizerBase  # type: ignore[attr-defined]


def language_half(folder: str) -> None:
    """Save a model of the bundled one's language half."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    text = json.loads((ROOT / "layerprof/demo/model/config.json").read_text())["text_config"]
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads")
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": text["vocab_size"]}
    Qwen2ForCausalLM(Qwen2Config(**{size: text[size] for size in sizes}, **ids)).save_pretrained(folder)


def cell(folder: str, batch_size: int, prompt: int) -> Any:
    """Run one cell and return its report."""
    from optimum_benchmark import Benchmark, BenchmarkConfig, InferenceConfig, ProcessConfig, PyTorchConfig

    scenario = InferenceConfig(
        iterations=ANSWERS // batch_size,
        duration=0,
        warmup_runs=1,
        input_shapes={"batch_size": batch_size, "sequence_length": prompt},
        generate_kwargs={"max_new_tokens": TOKENS, "min_new_tokens": TOKENS},
    )
    backend = PyTorchConfig(model=folder, device="cpu", task="text-generation", library="transformers")
    config = BenchmarkConfig(name="cell", launcher=ProcessConfig(), scenario=scenario, backend=backend)
    return Benchmark.launch(config)


def main() -> None:
    """Run the cells; print the seconds of each, and of what it measured in them."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        language_half(folder)
        making = time.perf_counter() - start
        os.chdir(folder)
        found = []
        for prompt in (PROMPT, PROMPT + 16):
            for batch_size in (1, 2):
                start = time.perf_counter()
                report = cell(folder, batch_size, prompt)
                timed = (report.first_generate, report.generate, report.prefill, report.decode)
                measured = sum(part.latency.total for part in timed if part is not None)
                found.append({"wall_s": time.perf_counter() - start, "measuring_s": float(measured)})
        os.chdir("/")
    print(json.dumps({"cells": found, "making_the_model_s": making}))


supply()

if __name__ == "__main__":
    main()
