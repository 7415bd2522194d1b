"""The layers of a run as plain data: the lines of the layer table, and the hot spots among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from layerprof.books.ledger import Sum, outermost
from layerprof.records import LayerRow, Phase, Run
from layerprof.report import units
from layerprof.report.run_parts import KIND_NAMES, main_quantity

Alike = Callable[[LayerRow, LayerRow], bool]

FOLD_ABOVE = 40
"""With more rows than this, similar neighbours share a line."""
ALIKE = 0.15
"""Neighbours are similar when their median span is this close to the median of their kind."""
LAUNCH_BOUND = 0.5
"""Below this busy share a GPU layer waits for its kernels to be launched more than it computes."""


AS_STORED = (
    "busy_share",
    "roof_share",
    "tokens_per_call",
    "kv_per_call",
    "memory_peak_bytes",
    "memory_kept_bytes",
    "memory_kept_kv_bytes",
    "weights_bytes",
)
"""Figures of a row that are of one call, or of none, as they stand; the others are sums over calls."""


@dataclass(frozen=True, slots=True)
class LayerLine:
    """One line of the layer table: a layer, or `layers` similar neighbours of which it shows the median."""

    label: str
    rows: tuple[LayerRow, ...]
    share: float | None
    depth: int = 0

    @property
    def calls(self) -> int:
        """Calls of one of the layers."""
        return self.rows[0].calls

    @property
    def at_least(self) -> bool:
        """Whether its FLOPs are a lower bound."""
        return any(row.at_least for row in self.rows)

    @property
    def bytes_at_least(self) -> bool:
        """Whether its bytes are a lower bound."""
        return any(row.bytes_at_least for row in self.rows)

    def each(self, name: str) -> float | None:
        """Return the layers' median of a figure of one call: `median_s`, `p95_s`, `busy_share`, `flops`, ..."""
        values = [value for row in self.rows if (value := per_call(row, name)) is not None]
        return median(values) if values else None


@dataclass(frozen=True, slots=True)
class HotSpot:
    """A layer in one phase, or neighbours alike, of which each takes `share`.

    `against_kind` is the median span over the median of all layers of its kind in that phase.
    """

    line: LayerLine
    share: float
    against_kind: float | None
    remark: str

    @property
    def row(self) -> LayerRow:
        """The layer, or the first of those alike."""
        return self.line.rows[0]


@dataclass(frozen=True, slots=True)
class Group:
    """The lines of one tower in one phase; labels leave out `prefix`."""

    tower: str
    phase: Phase
    prefix: str
    lines: tuple[LayerLine, ...]

    @property
    def entered(self) -> str:
        """What entered in the steps of a mixed phase, e.g. `6 prompt + 2 answer positions`; empty in others."""
        both = [entered for line in self.lines for row in line.rows if (entered := of_mixed(row))]
        if not both:
            return ""
        prompts, answers = map(units.count, max(both))
        return f"{prompts} prompt + {answers} answer positions"

    def blocks(self, name: str) -> list[float]:
        """Return a figure of one call of the repeated layers: of lines that stand for several, their median."""
        found = (line.each(name) for line in self.lines if line.rows[0].kind in KIND_NAMES)
        return [value for value in found if value is not None]

    def differs(self, name: str) -> bool:
        """Tell whether a figure of one call is another from one repeated layer to the next, by more than 1 %."""
        values = self.blocks(name)
        return bool(values) and max(values) - min(values) > 0.01 * max(values)


def of_mixed(row: LayerRow) -> tuple[int, int] | None:
    """Return the positions of prompts and of answers that entered in a mixed row's steps; None of other rows."""
    prompt, answer = row.mixed_prefill_tokens, row.mixed_decode_tokens
    return None if prompt is None or answer is None else (prompt, answer)


def per_call(row: LayerRow, name: str) -> float | None:
    """Return a row's figure for one call, in SI units; None where it was not measured."""
    if name in ("median_s", "p95_s"):
        return getattr(row.span_s, name.removesuffix("_s")) if row.span_s else None
    if name == "flops_per_token":
        known = row.flops is not None and row.tokens_per_call and row.calls and not row.at_least
        return (row.flops or 0) / (row.calls * (row.tokens_per_call or 1)) if known else None
    value: float | None = getattr(row, name)
    if name in AS_STORED or value is None:
        return value
    return value / row.calls if row.calls else None


def hot_spots(run: Run, most: int = 5) -> list[HotSpot]:
    """Return the layers that take the largest share of the time, or of the FLOPs where no time was measured.

    Neighbours that are alike count as one find, ranked by what each of them takes.
    """
    quantity, total = main_quantity(run)
    if not total:
        return []
    whole = outermost(run.layers)
    spots = []
    for group in layer_groups(run, fold=True):
        for line in group.lines:
            taken = [value for row in line.rows if (value := getattr(Sum.of(row), quantity))]
            if line.rows[0] in whole and taken:
                against = _against_kind(line.rows[0], whole)
                named = replace(line, label=f"{group.tower} {line.label}")
                spots.append(HotSpot(named, median(taken) / total, against, _remark(run, line.rows[0])))
    return sorted(spots, key=lambda spot: -spot.share)[:most]


def layer_groups(run: Run, fold: bool | None = None, alike: Alike | None = None) -> list[Group]:
    """Return the layer table by tower and phase; `fold` joins similar neighbours, by default when there are many.

    `alike` tells which; by default they take about as long as their kind does and do the same work.
    """
    if fold is None:
        fold = len(run.layers) > FOLD_ABOVE
    total = run.ledger.span_s.total
    groups: dict[tuple[Phase, str], list[LayerRow]] = {}
    for row in run.layers:
        groups.setdefault((row.phase, row.tower), []).append(row)
    result = []
    for (phase, tower), rows in groups.items():
        prefix = _prefix([row for row in run.layers if row.tower == tower])
        bundles = _folded(rows, alike or _by_time(rows)) if fold else [(row,) for row in rows]
        names = {row.name for row in rows}
        lines = tuple(_line(bundle, prefix, names, total) for bundle in bundles)
        result.append(Group(tower, phase, prefix, lines))
    return result


def short_name(name: str, prefix: str) -> str:
    """Return a layer's name without the prefix of its tower; the model itself has no name of its own."""
    return (name.removeprefix(f"{prefix}.") if prefix else name) or "(model)"


def _against_kind(row: LayerRow, rows: Sequence[LayerRow]) -> float | None:
    alike = [r.span_s.median for r in rows if r.kind == row.kind and r.phase == row.phase and r.span_s]
    if row.span_s is None or len(alike) < 2 or not median(alike):
        return None
    return row.span_s.median / median(alike)


def _remark(run: Run, row: LayerRow) -> str:
    on_gpu = str(run.environment.get("device") or run.settings.get("device") or "").startswith("cuda")
    if on_gpu and row.busy_share is not None and row.busy_share < LAUNCH_BOUND:
        return "launch-bound"
    return ""


def _prefix(rows: Sequence[LayerRow]) -> str:
    """Return the module path that holds the tower's repeated blocks: what stands before `blocks.0`."""
    block = next((row.name for row in rows if row.kind in KIND_NAMES), None)
    if block is None:
        return ""
    parts = block.split(".")
    return ".".join(parts[:-2]) if len(parts) >= 2 and parts[-1].isdigit() else ".".join(parts[:-1])


def _line(rows: tuple[LayerRow, ...], prefix: str, names: set[str], total: float | None) -> LayerLine:
    label = short_name(rows[0].name, prefix)
    if len(rows) > 1:
        stem, _, first = label.rpartition(".")
        label = f"{stem}.{first}-{rows[-1].name.rpartition('.')[2]}"
    spent = [row.span_s.total for row in rows if row.span_s]
    share = sum(spent) / total if spent and total else None
    parts = rows[0].name.split(".")
    depth = sum(".".join(parts[:n]) in names for n in range(1, len(parts)))
    return LayerLine(label, rows, share, depth)


def _folded(rows: Sequence[LayerRow], alike: Alike) -> list[tuple[LayerRow, ...]]:
    """Bundle blocks that follow each other in the model and are alike."""
    bundles: list[list[LayerRow]] = []
    for row in rows:
        last = bundles[-1][-1] if bundles else None
        if (
            last
            and last.kind == row.kind
            and row.kind in KIND_NAMES
            and row.index == last.index + 1
            and alike(last, row)
        ):
            bundles[-1].append(row)
        else:
            bundles.append([row])
    return [tuple(bundle) for bundle in bundles]


def near(a: LayerRow, b: LayerRow, *names: str) -> bool:
    """Tell whether these figures of one call differ by 1 % at most; one that either of them lacks tells nothing."""
    pairs = [(per_call(a, name), per_call(b, name)) for name in names]
    return all(x is None or y is None or abs(x - y) <= 0.01 * max(abs(x), abs(y)) for x, y in pairs)


def _by_time(rows: Sequence[LayerRow]) -> Alike:
    """Return what tells neighbours that take about as long as their kind does and do the same work."""
    usual: dict[str, float] = {}
    for kind in {row.kind for row in rows}:
        medians = [row.span_s.median for row in rows if row.kind == kind and row.span_s]
        usual[kind] = median(medians) if medians else 0.0

    def alike(a: LayerRow, b: LayerRow) -> bool:
        same = (a.calls, a.uncounted, a.weights_dtype) == (b.calls, b.uncounted, b.weights_dtype)
        if not same or not near(a, b, "flops", "tokens_per_call", "kv_per_call"):
            return False
        spans = [row.span_s.median for row in (a, b) if row.span_s]
        return len(spans) in (0, 2) and all(abs(span - usual[a.kind]) <= ALIKE * usual[a.kind] for span in spans)

    return alike
