"""What the latency pass gives: every call's span, the windows of the batches, and the gaps between layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from layerprof.records import Phase


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
