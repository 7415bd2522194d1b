"""Peak memory and time of a run against its number of samples: bundled scenes, drawn without end.

    python experiments/samples.py [--samples 50,500,5000] [--image-size 448] [--max-new-tokens 2] [--instrumented 50]
                                  [--json FILE] [--picture FILE]

Each number is one `layerprof profile` in a process of its own; its peak is what the system counted as resident (Linux
and macOS). Seconds are of the whole command, loading included; those of the processor hold beside other programs, too.
Exit status 1 where the largest run peaks 300 MB or more above the smallest. 5,000 samples take 10 to 20 minutes on two
cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from rows import caption, machine, save, show

HEADER = ("samples", "peak memory", "above the first", "whole command", "processor time", "run.json", "samples.jsonl")
ALLOWED = 300.0
"""MB that the largest run may peak above the smallest."""


@dataclass(frozen=True)
class Measured:
    """One run: MB of memory at its peak, seconds by the clock and of the processor, and its files in MB."""

    samples: int
    peak_mb: float
    wall_s: float
    run_mb: float
    samples_mb: float
    cpu_s: float | None = None


def measure(samples: int, options: argparse.Namespace) -> Measured:
    """Profile so many samples in a process of its own. Raises SystemExit where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        asked = {
            "--model": "demo",
            "--source": "bundled",
            "--samples": samples,
            "--device": options.device,
            "--image-size": options.image_size,
            "--instrumented": options.instrumented,
            "--energy": "off",
            "--max-new-tokens": options.max_new_tokens,
            "--output": output,
        }
        words = [str(word) for pair in asked.items() for word in pair]
        begin = time.perf_counter()
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "layerprof", "profile", "--no-trace", "--quiet", *words],
            os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        )
        _, status, used = os.wait4(child, 0)
        wall = time.perf_counter() - begin
        if status:
            raise SystemExit(f"the run of {samples} samples failed ({os.waitstatus_to_exitcode(status)})")
        sizes = [(output / name).stat().st_size / 1e6 for name in ("run.json", "samples.jsonl")]
    unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024  # kilobytes elsewhere
    return Measured(samples, used.ru_maxrss / unit, wall, *sizes, used.ru_utime + used.ru_stime)


def rows(found: Sequence[Measured]) -> list[tuple[str, ...]]:
    """Return a row for each run."""
    first = found[0]
    return [
        (
            f"{one.samples:,}",
            f"{one.peak_mb:,.0f} MB",
            f"{one.peak_mb - first.peak_mb:+,.0f} MB" if one is not first else "",
            f"{one.wall_s:,.0f} s",
            f"{one.cpu_s:,.0f} s, {1e3 * one.cpu_s / one.samples:,.0f} ms a sample" if one.cpu_s else "not taken",
            f"{one.run_mb:.2f} MB",
            f"{one.samples_mb:.2f} MB",
        )
        for one in found
    ]


def picture(found: Sequence[Measured], title: str, below: str) -> str:
    """Return an SVG: memory at the peak of each run, and how much the largest may have."""
    top = 1.25 * max(found[0].peak_mb + ALLOWED, *(one.peak_mb for one in found))
    left, width, high, low = 80, 150, 60, 300

    def y(megabytes: float) -> float:
        return low - (low - high) * min(megabytes, top) / top

    parts = []
    for tick in range(0, int(top), 200):
        parts += [
            f'<line x1="{left}" x2="{left + width * len(found)}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>',
            f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,}</text>',
        ]
    limit = y(found[0].peak_mb + ALLOWED)
    end = left + width * len(found)
    parts += [
        f'<line x1="{left}" x2="{end}" y1="{limit:.1f}" y2="{limit:.1f}" class="limit"/>',
        f'<text x="{end}" y="{limit - 6:.1f}" text-anchor="end">{ALLOWED:.0f} MB above the first</text>',
    ]
    for place, one in enumerate(found):
        x = left + width * place + 45
        parts += [
            f'<rect x="{x}" width="60" y="{y(one.peak_mb):.1f}" height="{low - y(one.peak_mb):.1f}" class="bar"/>',
            f'<text x="{x + 30}" y="{y(one.peak_mb) + 18:.1f}" text-anchor="middle" class="in">'
            f"{one.peak_mb:,.0f}</text>",
            f'<text x="{x + 30}" y="{low + 18}" text-anchor="middle">{one.samples:,} samples</text>',
            f'<text x="{x + 30}" y="{low + 36}" text-anchor="middle" class="small">{_taken(one)}</text>',
        ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {end + 30} 380" width="{end + 30}" height="380">',
            "<style>svg { background: #fff } text { font: 13px sans-serif; fill: #222 } .title { font-weight: bold }",
            ".small { font-size: 11px; fill: #555 } .in { fill: #fff } .bar { fill: #2f6f9f }",
            ".grid { stroke: #ddd } .limit { stroke: #b33; stroke-dasharray: 6 4 }</style>",
            f'<text x="{left}" y="24" class="title">{title}</text>',
            f'<text x="{left}" y="42" class="small">MB of resident memory at the peak of the whole command</text>',
            *parts,
            f'<text x="{left}" y="366" class="small">{below}</text>',
            "</svg>\n",
        ]
    )


def _taken(one: Measured) -> str:
    if one.cpu_s is None:
        return f"{one.wall_s:,.0f} s, machine shared"
    return f"{one.cpu_s:,.0f} s, {1e3 * one.cpu_s / one.samples:,.0f} ms each"


def main() -> int:
    """Measure, print, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", default="50,500,5000", help="numbers, with commas between them")
    parser.add_argument("--image-size", type=int, default=448)
    parser.add_argument("--max-new-tokens", type=int, default=2)
    parser.add_argument("--instrumented", default="50")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    try:
        counts = sorted({int(part) for part in options.samples.split(",")})
    except ValueError:
        parser.error("--samples takes numbers, such as 50,500")
    if counts[0] < 1:
        parser.error("--samples takes 1 or more")
    found = [measure(count, options) for count in counts]
    where = machine("torch", "transformers")
    title = f"Memory against samples: the bundled model, {options.image_size} px, {options.max_new_tokens} new tokens"
    show("samples", title, HEADER, rows(found), where)
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        options.picture.write_text(picture(found, title, caption(where)))
    save(options.json, {"machine": where, "runs": [asdict(one) for one in found]})
    return int(found[-1].peak_mb - found[0].peak_mb >= ALLOWED)


if __name__ == "__main__":
    raise SystemExit(main())
