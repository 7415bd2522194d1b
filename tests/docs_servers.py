"""Commands of other people's servers on our pages, held to the options and fields that those servers have."""

from __future__ import annotations

import json
import re

VLLM_PROFILER = {
    "profiler",
    "torch_profiler_dir",
    "torch_profiler_with_stack",
    "capture_torch_profiler",
    "detailed_trace_annotation",
    "ignore_frontend",
}
"""Fields of `ProfilerConfig` that the pages name (vLLM 0.26, vllm/config/profiler.py)."""
VLLM_COMPILATION = {"cudagraph_capture_sizes", "cudagraph_mode", "mode"}
"""Fields of `CompilationConfig` that the pages name (vLLM 0.26, vllm/config/compilation.py)."""
SGLANG_SERVER = {"--model-path", "--enable-profile-cuda-graph", "--cuda-graph-bs-decode"}
"""Options of the server that the pages name (SGLang 0.5.18, sglang/srt/server_args.py)."""
SGLANG_PROFILE = {"num_steps", "activities"}
"""Fields of `ProfileReq` that the pages name (SGLang 0.5.18, sglang/srt/managers/io_struct.py)."""


def vllm(words: tuple[str, ...]) -> None:
    """Check `vllm serve MODEL` and the fields of its configurations."""
    assert words[1] == "serve"
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given.keys() <= {"--compilation-config", "--profiler-config"}
    assert json.loads(given["--compilation-config"]).keys() <= VLLM_COMPILATION
    assert json.loads(given["--profiler-config"]).keys() <= VLLM_PROFILER


def sglang(words: tuple[str, ...]) -> None:
    """Check `python -m sglang.launch_server` and its options."""
    assert words[2] == "sglang.launch_server"
    assert {word for word in words if word.startswith("--")} <= SGLANG_SERVER


def curl(words: tuple[str, ...]) -> None:
    """Check that profiling is started or stopped, with fields that the server reads."""
    assert words[1:3] == ("-X", "POST")
    assert re.fullmatch(r"http://localhost:\d+/(start|stop)_profile", words[3])
    if "-d" in words:
        assert json.loads(words[words.index("-d") + 1]).keys() <= SGLANG_PROFILE
