"""The rows that a selector asked for, under the names it asked by, and what of each no other shown row holds.

Rows show whole calls, so that those of layers that call each other hold the same work twice. Sums of rows take from
each only its *apart*: the calls that are in no other shown row. By what called what, a found layer's row outranks a
submodule's, and the outer of two alike the inner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from layerprof.layers.nesting import whole_layers
from layerprof.readings import Chain, Key, Layer, Span, SpanReading, Work, WorkReading
from layerprof.records import Apart, LayerRow


def shown(
    rows: Sequence[LayerRow], selected: Sequence[Layer], spans: SpanReading | None, work: WorkReading | None
) -> tuple[LayerRow, ...]:
    """Return the rows of the selected layers."""
    named = {layer.name: layer for layer in selected}
    kept = [row for row in rows if row.name in named]
    calls = _Calls.of(named, spans, work)
    alone = whole_layers([Layer(named[row.name].shown, row.tower, row.kind, row.index) for row in kept])
    done = []
    for row in kept:
        name = named[row.name].shown
        apart = calls.apart(row)
        if apart is None and name not in alone:
            apart = Apart.of(row)  # its name stands inside another's, and it was never called from there
        done.append(row.model_copy(update={"name": name, "apart": apart}))
    return tuple(done)


@dataclass(frozen=True, slots=True)
class _Calls:
    """What was called from where: `ranks` are the shown layers whose rows outrank others."""

    kinds: Mapping[str, str]
    holders: frozenset[str]
    spans: Mapping[Key, Sequence[Span]]
    work: Mapping[Key, Mapping[Chain, Work]]

    @classmethod
    def of(cls, named: Mapping[str, Layer], spans: SpanReading | None, work: WorkReading | None) -> _Calls:
        kinds = {name: layer.kind for name, layer in named.items()}
        timed: dict[Key, list[Span]] = {}
        done: dict[Key, dict[Chain, Work]] = {}
        chains: set[tuple[str, ...]] = set()
        for span in spans.spans if spans else ():
            timed.setdefault((span.layer, span.phase), []).append(span)
            chains.add((*span.around, span.layer))
        for chain, amount in (work.nested if work else {}).items():
            done.setdefault((chain[0][-1], chain[1]), {})[chain] = amount
            chains.add(chain[0])
        found = {name for name, kind in kinds.items() if kind != "module"}
        around = {name for *outer, last in chains if last in found for name in outer}
        return cls(kinds, frozenset(around - found), timed, done)

    def apart(self, row: LayerRow) -> Apart | None:
        """Return what no other shown row holds; None where that is the whole row."""
        key = (row.name, row.phase)
        if row.name in self.holders:
            return Apart()
        spans = self.spans.get(key, ())
        alone = [span for span in spans if not self._held(row.name, span.around)]
        chains = self.work.get(key, {})
        works = {chain: amount for chain, amount in chains.items() if not self._held(row.name, chain[0][:-1])}
        if len(alone) == len(spans) and len(works) == len(chains):
            return None
        done = sum(works.values(), Work())
        seconds = fsum(span.end_s - span.start_s for span in alone)
        total = row.span_s.total if row.span_s else 0.0
        share = seconds / total if total else done.calls / row.calls if row.calls else 0.0
        return Apart(
            calls=len(alone) if spans else done.calls,
            flops=None if row.flops is None else done.flops,
            bytes=None if row.bytes is None else done.bytes,
            span_s=seconds if row.span_s else None,
            energy_j=None if row.energy_j is None else row.energy_j * share,
        )

    def _held(self, name: str, around: Sequence[str]) -> bool:
        """Whether a call made inside these layers' is in the row of one of them."""
        outranking = {other for other in around if other in self.kinds and other not in self.holders}
        if self.kinds[name] != "module":
            outranking = {other for other in outranking if self.kinds[other] != "module"}
        return bool(outranking)
