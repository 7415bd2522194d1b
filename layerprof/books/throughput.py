"""How much the bare walk gets done in a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerprof.books.totals import output_tokens
from layerprof.readings import Walked
from layerprof.records import RequestColumn


def of(walked: Sequence[Walked], request: RequestColumn | None) -> dict[str, Any]:
    """Return `samples_per_s` and `output_tokens_per_s` of a walk, the fields of `Totals`.

    Samples are over the wall time of their whole requests, from the image file to the answer (`request.total`), None
    where that was not timed. Tokens are those written, end marks included, over the time of `generate()` alone.
    """
    total = request.total if request else None
    writing = sum(batch.latency_s for batch in walked)
    return {
        "samples_per_s": sum(batch.rows for batch in walked) / total if total else None,
        "output_tokens_per_s": output_tokens(walked) / writing if writing else None,
    }
