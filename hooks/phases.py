"""The phase of a call: vision, prefill, decode or both of these mixed, told by what the call is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.overrides import has_torch_function

from layerprof.machine.modules import told
from layerprof.models import arguments
from layerprof.models.packed import Packed, packed_of
from layerprof.models.prompt import cached
from layerprof.records import Phase

if TYPE_CHECKING:
    from torch import nn

PhaseReader = Callable[[tuple[Any, ...], dict[str, Any]], Phase]
"""Tells the phase of a call from its arguments."""

Given = tuple[tuple[Any, ...], dict[str, Any]]
"""What a call was given."""


class PhaseTracker:
    """Tells prefill and decode apart by the positions of each step and of the prompt, never by call count.

    The positions of a step are those of the token ids that the embedding was given for it. Where it was given none
    (embeddings come ready made), they are those of the first block's input: (..., positions, features), or positions
    first in torch's own layers (`positions_first`).

    Prefill is what the prompt's positions enter with, in one step or in chunks; decode is every step after them, with
    several positions too where they are added to a filled cache (drafted tokens are checked). How long the prompt is
    `reset` may say; else the first step is prefill, unless it adds one position to a filled cache, and so is
    every step of several positions.

    Sequences that stand packed behind one another tell it by their own lengths: a pass with prompts and answers both is
    mixed, and `mixed[step]` says how many positions of each entered. `prompt` is that of the shortest of them, `packed`
    what the running pass was given.

    Modules that cannot tell from their own input (norm, lm_head) take the phase of the decoder layer that ran last.
    `step` is 0 in prefill and counts decode and mixed steps from 1; `part` is from where to where in the prompt the
    last step of prefill went, in positions. Nothing here raises, whatever a call is given; unless it is `reading`,
    nothing is read.
    """

    def __init__(self) -> None:
        self.positions_first = False
        self.reading = True
        self.reset()

    def reset(self, prompt: int | None = None) -> None:
        """Begin a new batch, whose prompt adds `prompt` positions: 0 if it only decodes, None if unknown."""
        self.phase = Phase.PREFILL
        self.step = 0
        self.started = False
        self.prompt = prompt
        self._left = prompt or 0
        self.part = (0, 0)
        self._caching = False
        self._ids: tuple[int, int] = (0, 0)
        self._most_ids = 0
        self._fresh = False
        self.mixed: dict[int, tuple[int, int]] = {}
        self._answering = 0
        self.packed: Packed | None = None
        self._given: Given | None = None

    @contextmanager
    def model(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
        """Stand around a pass through the model, which is given what its embedding and its blocks may not be."""
        before = self._given, self.packed
        self._given, self.packed = (args, kwargs), packed_of(kwargs, self.prompt or 0)
        try:
            yield
        finally:
            self._given, self.packed = before

    def embedding(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Phase:
        """Phase of the token embedding's call, which comes before the step's first block."""
        if self.positions_first or not self.reading:
            return self.phase
        try:
            found = _plain_ids(args) or arguments.token_ids(args, kwargs)
            if found is not None:
                self._ids, self._fresh = found, True
                self._most_ids = max(self._most_ids, found[1])
            new = found[1] if found is not None else self.length(args, kwargs)  # embeddings that come ready made
            if self.packed is not None:
                self.phase = self.packed.phase
            elif new is not None:
                self.phase = self._tell(new, self._given, otherwise=True)
        except Exception:  # whatever it was given, the call is the user's, and goes on
            return self.phase
        return self.phase

    def step_begins(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Phase:
        """Phase of the first block's call, which is the one that counts the decode steps."""
        if not self.reading:
            return self.phase
        packed = self.packed
        if packed is None and "cu_seq_lens_q" in kwargs:
            packed = packed_of(kwargs, self.prompt or 0)
        if packed is not None:
            return self._packs(packed)
        try:
            new = self._ids[1] if self._fresh else self.length(args, kwargs)
            self._fresh = False
            if new is None:
                return self.phase
            if new == 1 and self.started and not self._left:
                self.phase = Phase.DECODE
            else:
                self.phase = self._tell(new, (args, kwargs), otherwise=False)
                self._enter(new, args, kwargs)
        except Exception:  # as above
            return self.phase
        self.step = self.step + 1 if self.phase is Phase.DECODE else 0
        return self.phase

    def _packs(self, packed: Packed) -> Phase:
        """Begin a step of packed sequences."""
        self.phase, self.started, self._fresh = packed.phase, True, False
        self._answering += bool(packed.answer)
        self.step = self._answering if packed.answer else 0
        if self.phase is Phase.MIXED:
            self.mixed[self.step] = packed.prompt, packed.answer
        return self.phase

    def replayed(self) -> None:
        """Note a decode step of which no block was called: a graph of it was replayed."""
        if self.reading:
            self.phase, self.step, self._fresh = Phase.DECODE, self.step + 1, False

    def _tell(self, new: int, given: Given | None, *, otherwise: bool) -> Phase:
        """Tell the phase of a step that adds `new` positions.

        `given` are the arguments of the model or of the first block; whether a filled cache is among them is
        `otherwise`, once a prompt is in, where they do not tell.
        """
        if not self.started:
            decodes = self.prompt == 0 if self.prompt is not None else new == 1 and _adds(given)
        elif self._left:
            # One position is a chunk of the prompt if it is the last, or if all came one by one.
            decodes = new == 1 and not (self._most_ids == 1 or (self._left == 1 and self.part[1] - self.part[0] > 1))
        else:
            decodes = new == 1 or (self.prompt is not None and self._caching and _adds(given, otherwise=otherwise))
        return Phase.DECODE if decodes else Phase.PREFILL

    def _enter(self, new: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what has entered the cache with this step."""
        self.started = True
        if self.phase is Phase.DECODE:
            self._left = 0
            return
        if self._left > new:
            new = max(new, self.length(args, kwargs) or 0)
        self.part = (self.part[1], self.part[1] + new)
        self._left = max(self._left - new, 0)
        if self.prompt is not None:
            self._caching = kwargs.get("past_key_values") is not None or cached(args, kwargs) is not None

    def length(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
        """Return the positions of any language layer's input; None where it does not tell."""
        shape = _plain_shape(args)
        if shape is None or len(shape) != 3:
            return self._length(arguments.hidden(args, kwargs))
        positions = shape[0] if self.positions_first or self._turned(shape) else shape[1]
        return positions if type(positions) is int else None

    def _length(self, found: arguments.Operand | None) -> int | None:
        if found is None or found.packed is not None:
            return found and found.packed
        shape = found.shape
        if self.positions_first or (len(shape) == 3 and self._turned(shape)):
            return shape[0]
        # (rows, positions) of token ids, as against (..., positions, features); packed sequences have no rows.
        return shape[1] if found.integer and len(shape) == 2 else shape[-2]

    def _turned(self, shape: Sequence[int | None]) -> bool:
        """Whether a layer's input is (positions, rows, features) although the token ids are (rows, positions)."""
        rows, positions = self._ids
        return rows != positions and shape[0] == positions and shape[1] == rows


def _plain_shape(args: tuple[Any, ...]) -> Sequence[int] | None:
    """Return the shape of an ordinary tensor given first; None for all else, which takes longer to read."""
    if not args or type(args[0]) is not Tensor or has_torch_function(args[:1]):
        return None
    try:
        return args[0].shape
    except RuntimeError:  # nested tensors of the older layout have none
        return None


def _plain_ids(args: tuple[Any, ...]) -> tuple[int, int] | None:
    """Return (rows, positions) of ordinary token ids given first."""
    shape = _plain_shape(args)
    if shape is None or len(shape) != 2 or args[0].dtype.is_floating_point:
        return None
    rows, positions = shape
    return (rows, positions) if type(rows) is int and type(positions) is int else None


def _adds(given: Given | None, *, otherwise: bool = False) -> bool:
    """Whether a step adds to a cache that is filled; `otherwise` where that is not told."""
    found = cached(*given) if given is not None else None
    return otherwise if found is None else found.filled


def puts_positions_first(module: nn.Module) -> bool:
    """Whether a block is given (positions, rows, features): torch's own are, unless told otherwise."""
    return told(told(module, "self_attn"), "batch_first", True) is False
