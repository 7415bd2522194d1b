"""What a run on a GPU had to prove, beside what it showed: README.md of a folder of results of gpu.sh.

    python experiments/gpu_report.py FOLDER

Reads doctor.json, probe.json, probe-teardown.json and the runs batch1, batch16, graph and compiled; what is missing, or
cannot be read, is named.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from layerprof.errors import LayerprofError
from layerprof.records import LayerRow, LedgerColumn, Phase, Run
from layerprof.report import units
from layerprof.report.facts import known_overhead, overhead_interval, points
from layerprof.report.markdown_text import table
from layerprof.runs.store import load, load_samples

RUNS = ("batch1", "batch16", "graph", "compiled")
NO_JOULES = ("graph", "compiled")
BLOCKS = ("vision_block", "decoder_layer")
DECODE_FIXED, DECODE_PER_POSITION = 154_140_672, 8_192
"""FLOPs of a decoder layer of the 3B for one row and step, and those more for each position in its cache.

2 x (2048 x 2048 x 2 + 2 x 2048 x 256 + 3 x 2048 x 11008) multiply-accumulates of its matrices, 4 x 2048 of its scores.
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One figure: where it comes from, what it is, what it had to be; `holds` is None where it was not measured."""

    source: str
    what: str
    measured: str
    due: str
    holds: bool | None

    @classmethod
    def of(cls, source: str, what: str, value: Any, due: str, test: Callable[[Any], bool], shown: Any = None) -> Check:
        """Return the check of a figure; None was not measured."""
        text = units.MISSING if value is None else str(value if shown is None else shown)
        return cls(source, what, text, due, None if value is None else bool(test(value)))


def checks(folder: Path) -> Iterator[Check]:
    """Yield every check of the results in the folder, and of what should lie there and does not, that it is missing."""
    readers: dict[str, Callable[[], Iterator[Check]]] = {
        "doctor": lambda: doctors(_json(folder / "doctor.json")),
        "probe": lambda: probes("probe", _json(folder / "probe.json")),
        "teardown": lambda: probes("teardown", _json(folder / "probe-teardown.json")),
        **{name: partial(runs, name, folder / name) for name in RUNS},
    }
    for source, read in readers.items():
        try:
            found = list(read())
        except (LayerprofError, AttributeError, KeyError, TypeError, ValueError) as error:
            problem = getattr(error, "problem", f"{type(error).__name__}: {error}")
            found = [Check(source, "results", f"cannot be read ({problem})", "there", holds=None)]
        yield from found or [Check(source, "results", "none", "there", holds=None)]


def runs(name: str, folder: Path) -> Iterator[Check]:
    """Yield the checks of one run; nothing where there is none."""
    if not folder.is_dir():
        return
    run = load(folder)
    yield Check.of(name, "how it ended", run.status, "done", lambda x: x == "done")
    yield from times(name, run)
    yield from kernels(name, run)
    yield from work(name, run, folder)
    if name not in NO_JOULES:
        yield from energy(name, run, _json(folder / "energy.json"))


def doctors(found: Mapping[str, Any] | None) -> Iterator[Check]:
    """Yield what the square wave shows of the counter."""
    waves = [one for one in (found or {}).get("findings", []) if one["name"].endswith("square wave")]
    for wave in waves:
        facts, source = wave["facts"], "doctor"
        period, lag, gain, read = (facts.get(name) for name in ("period_s", "lag_s", "gain", "read_s"))
        yield Check.of(source, "counter updates every", period, "told", lambda _: True, units.seconds(period))
        yield Check.of(source, "counter lags by", lag, "≤ 0.15 s", lambda x: x <= 0.15, units.seconds(lag))
        told = None if gain is None else f"{gain:.3f}"
        yield Check.of(source, "counter / integrated power", gain, "within 5 %", lambda x: abs(x - 1) <= 0.05, told)
        yield Check.of(source, "one read takes", read, "told", lambda _: True, units.seconds(read))


def probes(name: str, found: Mapping[str, Any] | None) -> Iterator[Check]:
    """Yield what was lost of the probe's sessions, and what they left behind."""
    if found is None:
        return
    sessions = found["probe"]["sessions"]
    own, others = ([one for one in sessions if one["ours"] == ours] for ours in (True, False))
    seen = sum(one["launches"] - one["lost"] for one in own)
    yield Check.of(name, "launches recorded", seen, "above 0", lambda x: x > 0)
    if not seen:  # a profiler that sees nothing loses nothing
        return
    lost, orphans = [one["lost"] for one in own], [one["orphans"] for one in own]
    yield Check.of(name, "lost, as layerprof records", lost, "0 in every session", lambda x: not any(x), _list(lost))
    as_torch = [one["lost"] for one in others]
    yield Check.of(name, "lost, as torch records", as_torch, "told", lambda _: True, _list(as_torch))
    yield Check.of(name, "kernels without a launch", orphans, "0", lambda x: not any(x), _list(orphans))
    found = found["probe"]
    slow = found["slowdown"]
    noise = f"{100 * slow:+.1f} % (noise {100 * found['noise']:.1f} %)"
    yield Check.of(name, "work after a session", slow, "told", lambda _: True, noise)


def times(name: str, run: Run) -> Iterator[Check]:
    """Yield what shows that spans are right and cost little."""
    yield Check.of(name, "calls without a span", run.passes.get("spans_dropped"), "0", lambda x: x == 0)
    yield _residual(name, "span residual", run.ledger.span_s, 0.01)
    known, interval = known_overhead(run), overhead_interval(run)
    told = f"{units.MISSING if known is None else f'{points(known)} %'} {interval}".strip()
    yield Check(name, "cost of measuring", told, "≤ 2 %", None if known is None else known <= 1.02)


def kernels(name: str, run: Run) -> Iterator[Check]:
    """Yield what shows that kernels are whole and in the right place."""
    busy = run.ledger.busy_s
    if busy.total and str(run.environment.get("device", "")).startswith("cuda"):
        lost = busy.not_recorded.launches if busy.not_recorded else 0
        yield Check.of(name, "launched, not recorded", lost, "0", lambda x: x == 0)
        unseen = busy.rest.get("no launch seen", 0.0) / busy.total
        yield Check.of(name, "no launch seen", unseen, "≤ 0.5 %", lambda x: x <= 0.005, units.percent(unseen))
        graphs = busy.rest.get("graph launch", 0.0) / busy.total
        yield Check.of(name, "in CUDA graphs", graphs, "0: layers run eagerly", lambda x: x == 0, units.percent(graphs))
    blocks = [row for row in run.layers if row.kind in BLOCKS]
    shares = [row.busy_share for row in blocks if row.busy_share is not None]
    told = f"{min(shares):.2f} to {max(shares):.2f} in {len(shares)} of {len(blocks)} rows" if shares else None
    whole = len(shares) == len(blocks)
    yield Check.of(
        name, "busy / span", shares or None, "0 to 1.1", lambda x: whole and min(x) > 0 and max(x) < 1.1, told
    )
    if run.settings.get("optimization") == "compile":
        fused = [row.name for row in blocks if any("triton" in kernel for kernel, _ in row.top_kernels)]
        yield Check.of(name, "layers with Triton's kernels", len(fused), "above 0", lambda x: x > 0)


def work(name: str, run: Run, folder: Path) -> Iterator[Check]:
    """Yield what shows that FLOPs are right: books without a residual, and the 3B's decode by its closed form."""
    residual = run.ledger.flops.residual
    yield Check.of(name, "FLOPs residual", residual, "0", lambda x: x == 0)
    missing = ", ".join(f"{operator} ({calls:,} calls)" for operator, calls in run.uncounted_ops.items())
    yield Check.of(name, "operators without a formula", missing or "none", "none", lambda x: x == "none")
    decode = [row for row in run.layers if row.kind == "decoder_layer" and row.phase is Phase.DECODE]
    if run.model.get("parameters") == 3_754_622_976 and decode:
        steps = int(run.settings["max_new_tokens"]) - 1
        # Rows are padded to the longest of their batch, and padding is computed like the rest.
        lengths = [sample.prompt_tokens + sample.pad_tokens for sample in load_samples(folder)]
        due = sum(DECODE_FIXED + DECODE_PER_POSITION * (n + step) for n in lengths for step in range(1, steps + 1))
        found = {row.flops for row in decode}
        told = " and ".join(f"{flops:,}" for flops in sorted(flops or 0 for flops in found))
        yield Check.of(name, "FLOPs of a decoder layer in decode", found, f"{due:,}", lambda x: x == {due}, told)
    roofs = [row.roof_share for row in run.layers if row.kind in BLOCKS and row.roof_share is not None]
    told = f"at most {max(roofs):.2f}" if roofs else None
    yield Check.of(name, "share of the roof", roofs or None, "< 1.2", lambda x: max(x) < 1.2, told)


def energy(name: str, run: Run, replayed: Mapping[str, Any] | None) -> Iterator[Check]:
    """Yield what shows that joules close, and that replayed calls are those of the model."""
    closure = run.energy_closure
    share = None if closure is None else closure.residual_j / closure.total_j
    told = None
    if closure is not None and share is not None:
        low, high = (100 * end / closure.total_j for end in closure.residual_ci95)
        told = f"{100 * share:+.1f} % [{low:+.1f}, {high:+.1f}]"
    yield Check.of(name, "energy residual", share, "≤ 5 %", lambda x: abs(x) <= 0.05, told)
    missing = None if closure is None else len(closure.missing)
    yield Check.of(name, "rows without joules", missing, "0", lambda x: x == 0)
    replay = (replayed or {}).get("replay", {})
    yield Check.of(name, "rounds of replay", replay.get("rounds"), "≥ 2", lambda x: x >= 2)
    quiet, gap = run.totals.energy.baseline_w, (replay.get("gap_w") or {}).get("watts")
    rest = (run.passes.get("energy") or {}).get("instrument", {}).get("rest_w")
    if quiet is not None and gap is not None:
        rest_told = f", rests between walks {units.watts(rest)}" if rest is not None else ""
        told = f"{units.watts(quiet)} at rest, {units.watts(gap)} between kernels{rest_told}"
        yield Check.of(name, "power of an idle card", quiet, "told", lambda _: True, told)
    for (kind, phase), ratio in ratios(run.layers, replay.get("rows", ())).items():
        what = f"replayed / in the model, {kind} in {phase}"
        # Host-bound calls take their host's time, which is not the layer's: the books are what has to hold.
        yield Check.of(name, what, ratio, "told", lambda _: True, f"{ratio:.3f}")


def ratios(rows: Iterable[LayerRow], replayed: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Return seconds of a replayed call over those of a call in the model: medians by kind and phase.

    Under the energy counter, where the row says how long it took there; in older results in the latency pass.
    """
    seconds = {(row["name"], row["phase"]): row["seconds"] for row in replayed if row["seconds"]}
    places = {(row["name"], row["phase"]): place["seconds"] for row in replayed if (place := row.get("in_model"))}
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        again = seconds.get((row.name, row.phase.value))
        if again and row.span_s and row.calls:
            there = places.get((row.name, row.phase.value), row.span_s.total / row.calls)
            found.setdefault((row.kind, row.phase.value), []).append(again / there)
    return {key: median(values) for key, values in found.items()}


def _residual(name: str, what: str, column: LedgerColumn, most: float) -> Check:
    share = column.residual / column.total if column.residual is not None and column.total else None
    return Check.of(name, what, share, f"≤ {100 * most:g} %", lambda x: abs(x) <= most, units.percent(share))


def _list(counts: Iterable[int]) -> str:
    return ", ".join(str(count) for count in counts)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or cut off while it was written
        return None


def page(folder: Path) -> str:
    """Return README.md of the folder: the device, a table of the checks, and what fell short."""
    found = list(checks(folder))
    sign = {True: "yes", False: "NO", None: units.MISSING}
    rows = ((one.source, one.what, one.measured, one.due, sign[one.holds]) for one in found)
    short = [f"- {one.source}: {one.what} is {one.measured}, due {one.due}" for one in found if one.holds is False]
    unknown = [f"- {one.source}: {one.what} ({one.measured})" for one in found if one.holds is None]
    held = any(one.holds for one in found)
    lines = [
        f"# What {_device(folder)} had to prove",
        "",
        "By `python experiments/gpu_report.py`, from the results of `sh experiments/gpu.sh` beside this file.",
        "",
        *table(("from", "figure", "measured", "had to be", "holds"), rows, left=(0, 1, 2, 3, 4)),
        "",
        *(["What falls short:", "", *short] if short else ["Nothing that was measured falls short."] if held else []),
        *(["", "Not measured:", "", *unknown] if unknown else []),
    ]
    return "\n".join(lines) + "\n"


def _device(folder: Path) -> str:
    for name in RUNS:
        try:
            return str(load(folder / name).environment.get("device_name"))
        except LayerprofError:
            continue
    doctor = _json(folder / "doctor.json")
    for finding in doctor.get("findings", []) if isinstance(doctor, dict) else ():
        if finding["name"].startswith("cuda:") and finding["group"] == "device":
            return str(finding["detail"]).partition(",")[0]
    return "this device"


def main() -> int:
    """Write the page and print it."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    text = page(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "README.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
