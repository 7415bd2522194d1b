"""What the model was given beside text, over all samples: pictures, videos, their sizes and what they became."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from layerprof.readings import Questions
from layerprof.records import FedTotals, Range


def totals(asked: Sequence[Questions]) -> FedTotals | None:
    """Return the sums and ranges over the samples of these batches; None where nothing was noted of them."""
    rows = [row for batch in asked for row in batch.fed]
    if not rows:
        return None
    fed = [one for row in rows for one in row]
    videos = [one for one in fed if one.frames is not None]
    return FedTotals(
        images=len(fed) - len(videos),
        videos=len(videos),
        frames=sum(one.frames or 0 for one in videos),
        without=sum(not row for row in rows),
        width=_range([one.width for one in fed]),
        height=_range([one.height for one in fed]),
        tokens=_range([one.tokens for one in fed]),
    )


def _range(values: Sequence[int | None]) -> Range | None:
    """Return the range of figures; None where there are none, or one is not known."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Range(least=min(known), median=median(known), most=max(known))
