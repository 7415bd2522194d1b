"""Two runs, or two sweeps cell by cell: what changed in what was measured, end to end and layer by layer, and in how.

A difference has an interval where both runs kept their batches and answered the same samples; samples are then
resampled in pairs, so that what is hard for both does not count as noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from layerprof import batch_files, store, wer
from layerprof.batch_files import BatchTime
from layerprof.errors import RequestError
from layerprof.pairing import Draws, Unit, units
from layerprof.records import LayerRow, Phase, Run, Sample
from layerprof.sweep_folder import SweepFolder, is_sweep

NOT_SETTINGS = ("output", "hooks", "convention")
PASSING = ("gpu.temperature_c", "gpu.clock_sm_mhz", "gpu.clock_memory_mhz")
"""Facts of the environment that are different every time and are no change."""


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity in two runs, in its SI unit.

    `how` is `ratio` (after / before, and its interval) or `points` (after - before, of shares and rates).
    `higher_is_worse` is None for what is neither good nor bad. `n` is how many pairs the interval is of.
    """

    quantity: str
    unit: str
    before: float | None
    after: float | None
    how: Literal["ratio", "points"] = "ratio"
    ci95: tuple[float, float] | None = None
    n: int = 0
    higher_is_worse: bool | None = True

    @property
    def value(self) -> float | None:
        """The ratio or difference; None where one side was not measured, or a ratio has nothing below it."""
        if self.before is None or self.after is None:
            return None
        if self.how == "points":
            return self.after - self.before
        return self.after / self.before if self.before else (1.0 if self.after == 0 else None)

    @property
    def percent(self) -> float | None:
        """The change in percent, or in percentage points."""
        return None if self.value is None else 100 * (self.value - (1 if self.how == "ratio" else 0))

    def worse_by_more_than(self, percent: float) -> bool:
        """Tell a regression: worse by more than so many percent (or points), and not just by the noise of the pairs."""
        if self.percent is None or self.higher_is_worse is None:
            return False
        sign = 1 if self.higher_is_worse else -1
        if sign * self.percent <= percent:
            return False
        if self.ci95 is None:
            return True
        nothing = 1.0 if self.how == "ratio" else 0.0
        return self.ci95[0] > nothing if self.higher_is_worse else self.ci95[1] < nothing


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer in one phase: its time, work and energy in two runs."""

    name: str
    phase: Phase
    span: Change
    flops: Change
    energy: Change


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side. `same_answers` is the share of shared samples with the same tokens, None without."""

    title: str
    totals: tuple[Change, ...]
    layers: tuple[LayerChange, ...]
    settings: dict[str, tuple[Any, Any]]
    environment: dict[str, tuple[Any, Any]]
    shared_samples: int
    same_answers: float | None
    notes: tuple[str, ...] = ()

    def regressions(self, percent: float) -> list[Change]:
        """Return the end-to-end quantities that are worse by more than so many percent."""
        return [change for change in self.totals if change.worse_by_more_than(percent)]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """What `layerprof compare` found.

    There is one comparison for two runs, one a cell for two sweeps, and cells without a partner.
    """

    before: str
    after: str
    cells: tuple[Comparison, ...]
    alone: tuple[str, ...] = ()

    def regressions(self, percent: float) -> list[tuple[str, Change]]:
        """Return (cell, quantity) for all that is worse by more than so many percent."""
        return [(cell.title, change) for cell in self.cells for change in cell.regressions(percent)]


@dataclass(frozen=True)
class Side:
    """One run with what lies beside it."""

    run: Run
    samples: tuple[Sample, ...] = ()
    batches: tuple[BatchTime, ...] = ()
    spans: Mapping[tuple[str, Phase], Mapping[int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Side:
        """Read a run's folder. Raises RequestError."""
        folder = path if path.is_dir() else path.parent
        return cls(
            store.load(path),
            store.load_samples(folder),
            batch_files.load_batches(folder),
            batch_files.load_spans(folder),
        )


def compare(before: str | Path, after: str | Path) -> Comparisons:
    """Compare two runs or two sweeps by their folders. Raises RequestError for anything else, or a run and a sweep."""
    first, second = Path(before).expanduser(), Path(after).expanduser()
    if is_sweep(first) != is_sweep(second):
        kinds = ["sweep" if is_sweep(path) else "run" for path in (first, second)]
        raise RequestError(
            f"{before} is a {kinds[0]} and {after} is a {kinds[1]}.",
            "Compare two runs or two sweeps; the run of a cell lies in the sweep's folder under cells/.",
        )
    if not is_sweep(first):
        return Comparisons(str(before), str(after), (two(Side.of(first), Side.of(second)),))
    return _sweeps(first, second)


def two(a: Side, b: Side, title: str = "") -> Comparison:
    """Compare two runs."""
    paired = _Paired(a, b)
    return Comparison(
        title=title,
        totals=tuple(_totals(a, b, paired)),
        layers=tuple(_layers(a, b, paired)),
        settings=_differences(a.run.settings, b.run.settings, NOT_SETTINGS)
        | _differences(a.run.model, b.run.model, a.run.settings.keys() | {"transformers", "torch"})
        | _differences(a.run.dataset, b.run.dataset, ("ids", "name", "source")),
        environment=_differences(a.run.environment, b.run.environment, PASSING),
        shared_samples=len(paired.shared),
        same_answers=paired.same_answers(),
        notes=tuple(_notes(a, b, paired)),
    )


class _Paired:
    """The units of two runs, and sums over them."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b
        self.first = {sample.id: sample for sample in a.samples}
        self.second = {sample.id: sample for sample in b.samples}
        self.shared = [name for name in self.first if name in self.second]
        batches = ({s.id: s.batch for s in a.samples}, {s.id: s.batch for s in b.samples})
        self.units: tuple[Unit, ...] = units(*batches)
        self.draws = Draws(len(self.units)) if len(self.units) > 1 else None

    def same_answers(self) -> float | None:
        if not self.shared:
            return None
        same = [self.first[name].answer_tokens == self.second[name].answer_tokens for name in self.shared]
        return sum(same) / len(same)

    def times(
        self, before: Mapping[int, float], after: Mapping[int, float]
    ) -> tuple[float, float, tuple[float, float] | None, int] | None:
        """Return seconds per sample on both sides and the interval of their ratio; None where batches are missing."""
        known = [u for u in self.units if set(u.before) <= before.keys() and set(u.after) <= after.keys()]
        if not known or len(known) != len(self.units):
            return None
        a = [sum(before[batch] for batch in unit.before) for unit in known]
        b = [sum(after[batch] for batch in unit.after) for unit in known]
        samples = sum(len(unit.ids) for unit in known)
        interval = self.draws.ratio(b, a) if self.draws and sum(a) > 0 else None
        return sum(a) / samples, sum(b) / samples, interval, len(known)


# --- end to end -------------------------------------------------------------------------------------------------


def _totals(a: Side, b: Side, paired: _Paired) -> Iterator[Change]:
    before, after = a.run.totals, b.run.totals
    yield _latency(a, b, paired)
    for name, label in (("ttft", "time to first token, median"), ("per_output_token", "time per output token, median")):
        x, y = getattr(before.latency_s, name), getattr(after.latency_s, name)
        if x is not None or y is not None:
            yield Change(label, "s", x.median if x else None, y.median if y else None)
    yield Change("FLOPs per sample", "FLOP", before.flops_per_sample, after.flops_per_sample)
    yield Change("energy per sample", "J", before.energy.per_sample, after.energy.per_sample)
    yield Change("peak memory", "B", before.peak_memory_bytes, after.peak_memory_bytes)
    if before.wer or after.wer:
        yield _word_error_rate(a, b, paired)
    if before.task_metric or after.task_metric:
        yield _task_metric(a, b, paired)
    if before.wer and after.wer:
        yield Change("answers cut short", "", before.wer.truncated_share, after.wer.truncated_share, "points")


def _latency(a: Side, b: Side, paired: _Paired) -> Change:
    found = paired.times({x.batch: x.latency_s for x in a.batches}, {x.batch: x.latency_s for x in b.batches})
    if found is None:
        before, after = (side.run.totals.latency_s.per_sample.median for side in (a, b))
        return Change("latency per sample, median", "s", before, after)
    return Change("latency per sample", "s", found[0], found[1], "ratio", found[2], found[3])


def _word_error_rate(a: Side, b: Side, paired: _Paired) -> Change:
    sides = [side.run.totals.wer.corpus_min if side.run.totals.wer else None for side in (a, b)]
    interval, n = None, 0
    if len(paired.shared) > 1:
        before, after = (_edits(side, paired.shared) for side in (a, b))
        interval, n = Draws(len(paired.shared)).difference_of_rates(after, before), len(paired.shared)
    return Change("word error rate", "", sides[0], sides[1], "points", interval, n)


def _edits(side: Side, ids: Sequence[str]) -> tuple[list[float], list[float]]:
    """Return errors and reference words of each sample, scored as the run was."""
    by_id = {sample.id: sample for sample in side.samples}
    rows = [by_id[name] for name in ids]
    metric = side.run.totals.task_metric.name if side.run.totals.task_metric else None
    _, _, scores = wer.score(
        [row.references for row in rows], [row.answer for row in rows], [row.truncated for row in rows], metric=metric
    )
    best = [score.best or wer.Edits() for score in scores]
    return [float(edit.errors) for edit in best], [float(edit.words) for edit in best]


def _task_metric(a: Side, b: Side, paired: _Paired) -> Change:
    metrics = [side.run.totals.task_metric for side in (a, b)]
    name = next(metric.name for metric in metrics if metric)
    values = [metric.value if metric else None for metric in metrics]
    rows = [(paired.first[i].metric, paired.second[i].metric) for i in paired.shared]
    known = [(x, y) for x, y in rows if x is not None and y is not None]
    interval = None
    if len(known) > 1:
        ones = [1.0] * len(known)
        interval = Draws(len(known)).difference_of_rates(([y for _, y in known], ones), ([x for x, _ in known], ones))
    return Change(name, "", values[0], values[1], "points", interval, len(known), higher_is_worse=False)


# --- layers -----------------------------------------------------------------------------------------------------


def _layers(a: Side, b: Side, paired: _Paired) -> Iterator[LayerChange]:
    """Yield the layers of the first run and those that only the second has; of what both timed, the heaviest first."""
    first = {(row.name, row.phase): row for row in a.run.layers}
    second = {(row.name, row.phase): row for row in b.run.layers}
    found = [_layer(key, first.get(key), second.get(key), a, b, paired) for key in {**first, **second}]
    yield from sorted(found, key=lambda change: -(change.span.before or 0.0))


def _layer(
    key: tuple[str, Phase], x: LayerRow | None, y: LayerRow | None, a: Side, b: Side, paired: _Paired
) -> LayerChange:
    counts = (a.run.samples, b.run.samples)
    timed = paired.times(a.spans.get(key, {}), b.spans.get(key, {})) if paired.units else None
    if timed:
        span = Change("span per sample", "s", timed[0], timed[1], "ratio", timed[2], timed[3])
    else:
        totals = [row.span_s.total if row and row.span_s else None for row in (x, y)]
        span = Change("span per sample", "s", *_per_sample(totals, counts))
    return LayerChange(
        key[0],
        key[1],
        span,
        Change("FLOPs per sample", "FLOP", *_per_sample([x and x.flops, y and y.flops], counts)),
        Change("energy per sample", "J", *_per_sample([x and x.energy_j, y and y.energy_j], counts)),
    )


def _per_sample(values: Sequence[Any], counts: tuple[int, int]) -> tuple[float | None, float | None]:
    first, second = (
        None if value is None or not count else value / count for value, count in zip(values, counts, strict=True)
    )
    return first, second


# --- what else is different -------------------------------------------------------------------------------------


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], leave_out: Any) -> dict[str, tuple[Any, Any]]:
    first, second = dict(_flat(a)), dict(_flat(b))
    names = [name for name in {**first, **second} if name not in leave_out]
    return {n: (first.get(n), second.get(n)) for n in names if first.get(n) != second.get(n)}


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _notes(a: Side, b: Side, paired: _Paired) -> Iterator[str]:
    for name, side in (("first", a), ("second", b)):
        if side.run.status != "done":
            yield f"The {name} run is {side.run.status}: its figures are of what was finished."
        if not side.samples:
            yield f"The {name} run has no samples.jsonl, so nothing is paired."
        elif not side.batches:
            yield f"The {name} run has no {batch_files.BATCHES_FILE}, so latency is not paired."
    if a.samples and b.samples:
        if not paired.shared:
            yield "The runs answered different samples, so nothing is paired."
        elif len(paired.shared) < max(len(a.samples), len(b.samples)):
            counts = f"{len(a.samples)} and {len(b.samples)}"
            yield f"The runs share {len(paired.shared)} of {counts} samples; pairs are of these."
        elif not paired.units:
            yield "No set of samples is made of whole batches in both runs, so latency is not paired."
    if bool(a.run.settings.get("fixed_tokens")) is False or bool(b.run.settings.get("fixed_tokens")) is False:
        x, y = a.run.totals.output_tokens, b.run.totals.output_tokens
        if x != y:
            yield f"The runs wrote {x} and {y} tokens; compare runs with --fixed-tokens for the same work."


# --- sweeps -----------------------------------------------------------------------------------------------------


def _sweeps(before: Path, after: Path) -> Comparisons:
    """Compare sweeps cell by cell; cells are partners when they stand at the same point of a table of the same name."""
    folders = [SweepFolder(path if path.is_dir() else path.parent) for path in (before, after)]
    points: list[dict[str, tuple[str, str]]] = []
    for folder in folders:
        found: dict[str, tuple[str, str]] = {}
        for cell in folder.record().cells:
            for table, places in cell.points.items():
                for values in places:
                    where = " ".join(f"{name}={value}" for name, value in values.items())
                    repeat = f" repeat={cell.repeat}" if cell.repeat else ""
                    found[f"{table}: {where}{repeat}"] = (cell.key, cell.label)
        points.append(found)
    cells, alone, seen = [], [], set()
    for place in {**points[0], **points[1]}:
        keys = [found[place][0] if place in found else None for found in points]
        if tuple(keys) in seen:
            continue
        seen.add(tuple(keys))
        sides = [_side(folder, key) for folder, key in zip(folders, keys, strict=True)]
        if sides[0] and sides[1]:
            cells.append(two(sides[0], sides[1], place))
        else:
            alone.append(f"{place}: {_why_alone(folders, keys)}")
    return Comparisons(str(before), str(after), tuple(cells), tuple(alone))


def _side(folder: SweepFolder, key: str | None) -> Side | None:
    if key is None or not (folder.cell_folder(key) / store.RUN_FILE).is_file():
        return None
    return Side.of(folder.cell_folder(key))


def _why_alone(folders: Sequence[SweepFolder], keys: Sequence[str | None]) -> str:
    told = []
    for name, folder, key in zip(("first", "second"), folders, keys, strict=True):
        if key is None:
            told.append(f"not in the {name} sweep")
            continue
        outcome = folder.outcome(key)
        if outcome is None:
            told.append(f"not measured in the {name}")
        elif outcome.reason:
            told.append(f"{outcome.status.value} in the {name} ({outcome.reason})")
    return ", ".join(told)
