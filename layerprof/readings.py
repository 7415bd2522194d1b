"""What is found and read in a live model: the layers, and what each instrument hands over.

Plain frozen dataclasses, since there are many of them; the books make a `records.Run` of them. Units are SI and stand
in the field's name.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal, TypeVar

from layerprof.records import Phase, Tower

Key = tuple[str, Phase]
"""A layer's name and a phase: what has a row."""

Chain = tuple[tuple[str, ...], Phase]
"""Names of located layers whose calls held one another, outermost first, and the phase of the innermost call."""

Name = TypeVar("Name", bound=Hashable)
Amount = TypeVar("Amount", "Work", "Uncounted")


@dataclass(frozen=True, slots=True)
class Layer:
    """A unit that gets a row. `name` is its key in `named_modules()` of the loaded model.

    A module that stands in the model under several names has the first of them, and the one that a selector asked by
    as `alias`.

    `kind` is `vision_block`, `decoder_layer`, `encoder_layer` (of a language tower that has an encoder), one of the
    named rest (`patch_embed`, `merger`, `embed_tokens`, `norm`, `lm_head`, ...) or, for a submodule that a selector
    asked for, `module`. `index` counts within kind and tower from 0.
    """

    name: str
    tower: Tower
    kind: str
    index: int
    alias: str = field(default="", compare=False)

    @property
    def found(self) -> bool:
        """Whether it is a layer by the model's structure, not a submodule that a selector asked for."""
        return self.kind != "module"

    @property
    def shown(self) -> str:
        """The name that its row has."""
        return self.alias or self.name


@dataclass(frozen=True, slots=True)
class Span:
    """One call of one layer: seconds since the start of its batch's window, idle gaps included.

    `self_s` leaves out the time inside other located layers that it called; the books add it up. A submodule that a
    selector asked for has none: its time is that of the layer it ran in. `around` names the located layers whose calls
    held this one, outermost first.
    """

    layer: str
    phase: Phase
    batch: int
    step: int
    start_s: float
    end_s: float
    self_s: float
    around: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpanReading:
    """What the latency pass gives: every call's span, each batch's window on the host clock, and named gaps.

    `windows_s[b]` is the host wall time of batch b's `generate()`, device synchronised. `gaps_s` is the time inside
    the windows that no layer's span covers, by where it fell (`before the first layer`, `within decode`, `between
    decode steps`, ...). `disturbed` are the (batch, step) in which something else cost time: they are in medians only
    where there are no others. `mixed[batch, step]` are the positions of prompts and of answers of a step.
    """

    spans: tuple[Span, ...]
    windows_s: tuple[float, ...]
    gaps_s: dict[str, float]
    clock: str
    dropped: int = 0
    disturbed: frozenset[tuple[int, int]] = frozenset()
    mixed: Mapping[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def undisturbed(self, spans: Sequence[Span]) -> Sequence[Span]:
        """Return those of some spans that nothing disturbed; all, where there are none."""
        return [s for s in spans if (s.batch, s.step) not in self.disturbed] or spans

    def undisturbed_windows_s(self) -> Sequence[float]:
        """Return the windows in which nothing was disturbed; all, where there are none."""
        disturbed = {batch for batch, _ in self.disturbed}
        return [length for batch, length in enumerate(self.windows_s) if batch not in disturbed] or self.windows_s


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs and bytes of a set of calls; adds up with `+` and `sum(..., Work())`.

    `flops` is executed work, 2 per multiply-accumulate, causal attention not halved, padding counted.
    `flops_useful` counts real tokens only; `flops_causal` halves what a causal mask hides. `bytes_*` is the least
    traffic: weights once a call, activations in and out of the layer, KV cache read and written. `tokens` are
    positions that calls were given, in all rows, padding counted; `kv` those whose keys and values attention may read:
    cached and new ones, an encoder's that a decoder attends to beside its own, summed over the attentions of a call
    that holds several.
    """

    calls: int = 0
    flops: int = 0
    flops_useful: int = 0
    flops_causal: int = 0
    bytes_weights: int = 0
    bytes_activations: int = 0
    bytes_kv: int = 0
    tokens: int = 0
    kv: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self.astuple(), other.astuple(), strict=True)))

    def __radd__(self, other: Literal[0]) -> Work:
        return self

    def astuple(self) -> tuple[int, ...]:
        """Return the fields in order."""
        figures: tuple[int, ...] = _FIGURES(self)
        return figures

    @property
    def bytes(self) -> int:
        """All traffic: weights, activations and KV cache."""
        return self.bytes_weights + self.bytes_activations + self.bytes_kv

    @property
    def tokens_per_call(self) -> float | None:
        """Mean over calls; None where none of them was given positions."""
        return self.tokens / self.calls if self.tokens and self.calls else None

    @property
    def kv_per_call(self) -> float | None:
        """Mean over calls; None where there was no attention in any of them."""
        return self.kv / self.calls if self.kv and self.calls else None


_FIGURES = attrgetter(*Work.__slots__)

NOT_WATCHED = "a step whose operators were not watched"
ELSEWHERE = "a call on another thread, whose operators were not watched"
"""Stand for the names of operators that nobody saw, in `WorkReading.uncounted`."""


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Calls of an operator that may do matrix work and has no formula; adds up with `+`.

    `seconds` are those that the host spent inside the calls, None where that is not how long they took: a GPU works
    behind the host's back.
    """

    calls: int = 0
    seconds: float | None = 0.0

    def __add__(self, other: Uncounted) -> Uncounted:
        unknown = self.seconds is None or other.seconds is None
        return Uncounted(self.calls + other.calls, None if unknown else (self.seconds or 0) + (other.seconds or 0))

    def __radd__(self, other: Literal[0]) -> Uncounted:
        return self


@dataclass(frozen=True, slots=True)
class WorkReading:
    """What the flops pass gives; adds up with `+` and `sum(...)`, and `WorkReading()` is no work at all.

    `layers[(name, phase)]` is the work inside each located layer (inside nested ones: of the innermost);
    `outside[(module path, phase)]` is what ran under no located layer; `total_flops` is counted on its own, op by
    op, without regard to layers. `uncounted[(layer or module path, phase, operator)]` are the calls of operators that
    may do matrix work and have no formula, of the innermost layer or module, too: where there are any, the FLOPs there
    are a lower bound.

    These are the books': they do not depend on which submodules were asked for. `nested[(names, phase)]` is the work of
    whole calls of the last of `names` in its phase, with everything that ran inside them, where the others are the
    located layers whose calls held them, outermost first: by what called what, not by module path. Bytes there are
    those of the layer itself: what crosses its own boundary, and each distinct weight once a call.
    `uncounted_inside` is `uncounted` of every layer whose call was running, by the phase of that call.
    """

    layers: dict[Key, Work] = field(default_factory=dict)
    outside: dict[Key, Work] = field(default_factory=dict)
    total_flops: int = 0
    uncounted: dict[tuple[str, Phase, str], Uncounted] = field(default_factory=dict)
    nested: dict[Chain, Work] = field(default_factory=dict)
    uncounted_inside: dict[tuple[str, Phase, str], Uncounted] = field(default_factory=dict)

    @property
    def whole(self) -> dict[Key, Work]:
        """Work of each layer's calls with everything that ran inside them; what calls itself has its work once."""
        if not self.nested:
            return dict(self.layers)
        total: dict[Key, Work] = {}
        for (chain, phase), work in self.nested.items():
            *around, name = chain
            more = Work(calls=work.calls, tokens=work.tokens) if name in around else work
            total[name, phase] = total.get((name, phase), Work()) + more
        return total

    def __add__(self, other: WorkReading) -> WorkReading:
        return WorkReading(
            layers=added(self.layers, other.layers),
            outside=added(self.outside, other.outside),
            total_flops=self.total_flops + other.total_flops,
            uncounted=added(self.uncounted, other.uncounted),
            nested=added(self.nested, other.nested),
            uncounted_inside=added(self.uncounted_inside, other.uncounted_inside),
        )

    def __radd__(self, other: Literal[0]) -> WorkReading:
        return self

    def uncounted_calls(self) -> dict[str, int]:
        """Return how often each operator without a formula ran, wherever it did."""
        calls: dict[str, int] = {}
        for (_, _, operator), missed in self.uncounted.items():
            calls[operator] = calls.get(operator, 0) + missed.calls
        return calls


def added(one: Mapping[Name, Amount], other: Mapping[Name, Amount]) -> dict[Name, Amount]:
    """Return the sum key by key, in the order of their first."""
    total = dict(one)
    for key, amount in other.items():
        total[key] = total[key] + amount if key in total else amount
    return total


@dataclass(frozen=True, slots=True)
class Lost:
    """Launches whose work the profiler did not record: how many `of` all, and where they were made.

    What they ran is in no figure. `may_be_s` is what it comes to at the mean of the recorded launches of the same
    layer, None where nothing like them was recorded. `places[(name, phase)]` counts those inside a layer.
    """

    launches: int = 0
    of: int = 0
    may_be_s: float | None = 0.0
    places: dict[tuple[str, Phase], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelReading:
    """What the trace pass gives: busy seconds by innermost layer range, and the buckets that are no layer's.

    On a CPU `busy` is the time inside operators instead of GPU kernels; `device` says which. `buckets` holds
    `outside layers`, `no launch seen` and `graph launch`; together with `busy` they add up to `total_s`. `top`
    names the heaviest kernels of each layer. `whole_s` and `host_whole_s` are `busy_s` and `host_s` with everything
    that was launched inside the layer's calls. `calls[(name, phase)]` is how many calls the busy seconds belong to: the
    trace covers the first `batches` batches only. `host_s` is the time on the launching thread with that range
    innermost, so on a CPU `busy_s <= host_s`. `graph_s` is the work of CUDA graphs launched inside the range, which is
    in the bucket `graph launch` and not in `busy_s`. `lost` is what the profiler did not record.
    """

    busy_s: dict[tuple[str, Phase], float]
    calls: dict[tuple[str, Phase], int]
    buckets_s: dict[str, float]
    total_s: float
    top: dict[tuple[str, Phase], tuple[tuple[str, float], ...]]
    device: Literal["cuda", "cpu"]
    batches: int
    host_s: dict[tuple[str, Phase], float] = field(default_factory=dict)
    graph_s: dict[tuple[str, Phase], float] = field(default_factory=dict)
    lost: Lost = field(default_factory=Lost)
    whole_s: dict[tuple[str, Phase], float] = field(default_factory=dict)
    host_whole_s: dict[tuple[str, Phase], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Generated:
    """What a batch was answered.

    Per row: `answers` is the text, `answer_tokens` its ids up to the end mark, `new_tokens` how many were generated
    (the end mark included), `truncated` whether the limit came before an end mark. `first_token_s` is the time from the
    call until the first token's logits were there, `step_times_s` that of each further one, for the batch as a whole.
    `bad_logits` says that logits were NaN or infinite; None where it was not looked at.
    """

    answers: tuple[str, ...]
    answer_tokens: tuple[tuple[int, ...], ...]
    new_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    first_token_s: float | None
    step_times_s: tuple[float, ...]
    bad_logits: bool | None = None


@dataclass(frozen=True, slots=True)
class Questions:
    """What a batch was asked, row by row, without pictures and tensors: what is kept of a batch that is over.

    `prompts` is the user's text, `prompt_tokens` the real tokens (images included), `pad_tokens` the padding on the
    left, `image_tokens` those that stand for the image, `question_cut` the tokens that the budget cut, `keys` what
    tells the same sample in another run (`records.Sample`). `shape` is equal for batches whose inputs have equal
    shapes, image grids and padding.
    """

    index: int
    ids: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    choices: tuple[tuple[str, ...], ...]
    prompts: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    pad_tokens: tuple[int, ...]
    image_tokens: tuple[int, ...]
    question_cut: tuple[int, ...]
    keys: tuple[str, ...] = ()
    shape: Hashable = None

    @property
    def rows(self) -> int:
        """How many samples are asked together."""
        return len(self.ids)

    @property
    def length(self) -> int:
        """Positions of a prompt, padding included."""
        return max((a + b for a, b in zip(self.prompt_tokens, self.pad_tokens, strict=True)), default=0)


@dataclass(frozen=True, slots=True)
class Made:
    """Seconds that the making of a batch took.

    `read_s` decodes the images, `process_s` makes tensors of images and prompts, `copy_s` brings them to the device
    (timed there on a GPU). `wall_s` is all of it by the host's clock, what lies between included.
    """

    read_s: float
    process_s: float
    copy_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """What the memory pass gives, in bytes.

    By layer and phase, layers inside included: `peak` is the most that one call held beyond what was there when it
    began, its output included; `kept` what all its `calls` have left behind together: what there was more after each
    than before, less its output; below zero where they gave more back. `kept_kv` is the part of it in the KV cache.
    Calls that raised are in none.

    `weights` are those of each layer that lie in memory, each storage under one layer: the innermost that has it, the
    first of several; `tied[name]` is the layer under which another's weights stand. `weights_elsewhere` are of none.

    At the moment of the walk's peak: `at_peak` is by layer what its calls had allocated and not yet freed, each byte
    under the innermost layer; `kv_cache` what calls had left in the KV cache by then, `inputs` the batch's tensors,
    `before` what else lay there when the walk began, `outside` by module what was allocated under no layer. Together
    with the weights they are to come to `total`, the peak of the whole walk by a counter of its own, which `source`
    names.
    """

    peak: dict[Key, int]
    kept: dict[Key, int]
    kept_kv: dict[Key, int]
    calls: dict[Key, int]
    weights: dict[str, int]
    weights_elsewhere: int
    at_peak: dict[str, int]
    kv_cache: int
    inputs: int
    before: int
    outside: dict[str, int]
    total: int
    source: str
    tied: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Walked:
    """One batch answered: host seconds of its `generate()` with the device synchronised, and what came out.

    `wall_s` is from before the answering to after it, what stands around `generate()` included; None where not taken.
    """

    rows: int
    latency_s: float
    generated: Generated
    wall_s: float | None = None
