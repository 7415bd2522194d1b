"""What a kernel's name tells: what it does, and what it is called where sizes, types and numbers do not count. Pure.

Names are those of CUDA, HIP, Triton and Inductor as a profiler writes them: demangled with template parameters, mangled
(`_ZN5aiter24add_rmsnorm_quant_kernel...`), made of the operators that were fused (`triton_poi_fused_mul_silu_4`), or of
sizes (`Cijk_Alik_Bljk_BBS_BH_..._MT64x32x256`, `nvjet_sm90_hsh_64x8_64x16_4x2_h_bz_TNT`).
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache


class Does(IntEnum):
    """What a kernel does in a model, as far as its name says."""

    OTHER = 0
    ATTENTION = 1
    SCAN = 2
    """Mixes positions without attention: state spaces, linear attention, causal convolution."""
    NORM = 3
    NORM_PART = 4
    """A step of a norm that runs as several kernels: the one that no other operator has, `rsqrt`."""
    GEMM = 5
    ROPE = 6
    CACHE = 7
    ACTIVATION = 8
    EXPERTS = 9
    SOFTMAX = 10
    REDUCE = 11
    ADD = 12
    ELEMENTWISE = 13
    COPY = 14
    FILL = 15
    EMBEDDING = 16
    SAMPLE = 17
    COMMUNICATION = 18
    OPTIMIZER = 19
    BACKWARD = 20
    POSITIONS = 21
    """Counts positions, as a model does before its first layer."""
    CONVOLUTION = 22


_RULES: tuple[tuple[Does, str], ...] = (
    (Does.BACKWARD, r"backward|bwd|[dw]grad|_grad_|grad_input|fmha_cutlassb"),
    (Does.NORM, r"all_?reduce_?fusion|all_?reduce\w*norm|norm\w*all_?reduce"),
    (Does.OPTIMIZER, r"multi_tensor_apply|fusedoptimizer|fusedadam|adam_|optimizer"),
    (Does.COMMUNICATION, r"nccl|rccl|all_?reduce|all_?gather|reduce_?scatter|cross_device_reduce|nvshmem|allto?all"),
    (
        Does.CACHE,
        r"(reshape|concat)_and_cache|store_kv_?cache|set_kv_buffer|kv_?cache_?(write|update|store|copy|append)"
        r"|append_?paged|create_flashinfer_kv_indices|index_put|slot_mapping",
    ),
    (Does.ROPE, r"rotary|(^|[^a-z])m?rope|rope_"),
    (
        Does.SCAN,
        r"selective_(scan|state)|causal_?conv1d|chunk_(scan|state|gated|delta|gla|fwd_|cumsum)|bmm_chunk"
        r"|state_passing|mamba|gated_?delta|delta_rule|fused_recurrent|linear_attn|lightning_attn|(^|_)gla_|wkv|rwkv|retention"
        r"|(^|[^a-z])ssd_",
    ),
    (
        Does.EXPERTS,
        r"moe|expert|matmul_ogs|grouped_?gemm|group_gemm|routing|bitmatrix|topk_(forward|softmax|gating)"
        r"|^_?topk_|scatter_bf16|permute_tokens|grouped_topk|topk_ids|topk_transform",
    ),
    (
        Does.ATTENTION,
        r"attention|(^|[^a-z])attn|[a-z]_attn|flashattn|flash_?(fwd|bwd|fprop|mla|infer|attn|decod|split)|fmha"
        r"|sdpa|[^a-z]mha|mha_|(^|[^a-z])mla_|_mla_|paged_?kv|pagedattn|prefillwith|decodewith|xqa|reduce_segments"
        r"|merge_attn|mergestates?|fwd_(grouped_)?kernel_stage|(^|[^a-z])_?fwd_kernel$|attn_fwd",
    ),
    (
        Does.SAMPLE,
        r"argmax|multinomial|(?<!up)sampling|(?<!up)sample_|top_?p|top_?k|gumbel|exponential_|distribution_elementwise"
        r"|penalt|min_?p_|logits_process|radixsort|sbtopk|bitonicsort",
    ),
    (Does.SOFTMAX, r"softmax"),
    (Does.NORM, r"norm(?!al)(?!_?kv)|rms_?n"),
    (
        Does.ACTIVATION,
        r"silu|gelu|swiglu|swish|act_and_mul|geglu|relu_?kernel|(^|::)relu(?![a-z_])|launch_clamp|clamp_scalar|relu_squared",
    ),
    (Does.CONVOLUTION, r"implicit_?(conv|gemm)|fprop|convolve|conv[123]d|winograd"),
    (
        Does.GEMM,
        r"gemm|(^|[^a-z])cijk|nvjet|matmul|splitk|cublas|cutlass|(^|_)mm(_|$)|wmma"
        r"|gemv|(^|[^a-z])dot_kernel|marlin|qmm|w[48]a(8|16)|wvsplit|tensorop",
    ),
    (Does.EMBEDDING, r"embedding|indexselect|vectorized_gather|gather_kernel"),
    (Does.NORM_PART, r"rsqrt"),
    (Does.POSITIONS, r"arange|elementwise_kernel_with_index"),
    (Does.FILL, r"memset|fillfunctor"),
    (Does.COPY, r"memcpy|copy|catarray|transpose|permute|nchwtonhwc|nhwctonchw|(?<!no)cast"),
    (Does.ADD, r"functor_add"),
    (Does.REDUCE, r"reduce_kernel|reduce_"),
    (Does.ELEMENTWISE, r"elementwise"),
)
_COMPILED = re.compile(r"^(triton|cpp)_(poi|per|red|tem|unk|mm|fused)?")
_COMPILED_RULES: tuple[tuple[Does, str], ...] = (
    (Does.BACKWARD, r"backward"),
    (Does.EXPERTS, r"moe|expert|topk"),
    (Does.ATTENTION, r"tem_fused.*attention|flex_attention|flex_decoding"),
    (Does.CONVOLUTION, r"^triton_.*_convolution"),
    (Does.GEMM, r"^triton_(tem|mm)|_mm_kernel"),
    (Does.NORM, r"norm|rsqrt"),
    (Does.SOFTMAX, r"softmax"),
    (Does.ACTIVATION, r"silu|gelu|sigmoid|swiglu|relu|erf|tanh"),
    (Does.EMBEDDING, r"embedding"),
    (Does.SAMPLE, r"argmax|multinomial|exponential"),
    (Does.CACHE, r"index_put"),
    (Does.ROPE, r"neg|cos|sin|rotary"),
    (Does.ELEMENTWISE, r"^triton_poi"),
    (Does.REDUCE, r"^triton_(per|red)"),
)
_ORDER = tuple((does, re.compile(pattern, re.IGNORECASE)) for does, pattern in _RULES)
_COMPILED_ORDER = tuple((does, re.compile(pattern, re.IGNORECASE)) for does, pattern in _COMPILED_RULES)
_LEADING = re.compile(r"^(void|std::enable_if<[^>]*>::type) ")
_MANGLED = re.compile(r"(?<=\d)(?=[A-Za-z_])")
_HASH = re.compile(r"(?<![0-9a-zA-Z])(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{6,}(?![0-9a-zA-Z])")
_NUMBER_AT_END = re.compile(r"(_\d+)+(?=[^0-9A-Za-z]|$|d\b)")
_SIZES = re.compile(r"\d+")

KEPT = 4096
"""Names whose meaning is remembered: a trace has some hundreds, each in many sequences."""


@lru_cache(KEPT)
def does(name: str) -> Does:
    """Return what the kernel does; OTHER where its name says nothing that is known here."""
    rules = _COMPILED_ORDER if _COMPILED.match(name) else _ORDER
    return next((found for found, pattern in rules if pattern.search(name)), Does.OTHER)


@lru_cache(KEPT)
def numberless(name: str) -> str:
    """Return the name without hashes and without numbers that a compiler appended to tell kernels apart."""
    return _NUMBER_AT_END.sub("", _HASH.sub("", name))


@lru_cache(KEPT)
def coarse(name: str) -> str:
    """Return the kernel's family: no template parameters but the functor in them, no sizes, no argument list.

    `at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<...>, ...>(int, ...)` and its like for
    other types and widths become one name, and so do GEMM kernels of one library with other tiles.
    """
    what = does(name)
    return _family(name) + (f" {what.name.lower()}" if what else "")


def _family(name: str) -> str:
    text = _LEADING.sub("", name)
    if text.startswith("Cijk_"):
        return "Cijk"
    if text.startswith("nvjet_"):
        return "nvjet"
    if text.startswith("_Z"):
        return _SIZES.sub("", _demangled(text))
    if re.search(r"xmma_gemm|cutlass.*gemm|gemm.*cutlass|tensorop", text):
        return "gemm"
    functor = re.search(r"(\w+_kernel_cuda|\w+[fF]unctor\w*|\w+_kernel_impl\b(?!_)|\w*Ops)\b", text.partition("<")[2])
    head = re.split(r"[<(]", text.replace("(anonymous namespace)", "anonymous"), maxsplit=1)[0]
    return _SIZES.sub("", numberless(head)) + (f"<{functor.group(1)}>" if functor else "")


def _demangled(name: str) -> str:
    """Return the identifiers of an Itanium-mangled name's own path, without its parameters."""
    parts, at = [], re.match(r"_ZN?K?", name)
    place = at.end() if at else 0
    while (length := re.match(r"\d+", name[place:])) is not None:
        start = place + length.end()
        place = start + int(length.group())
        parts.append(name[start:place])
    return "::".join(parts) or name
