"""The header says what the model was fed and what it became, for every family."""

from __future__ import annotations

import pytest
from sample_run import sample_run

from layerprof.records import FedTotals, Range, Run
from layerprof.report import facts, fed


def _run(of: FedTotals | None, *, asked: int | str = 224, samples: int = 4, tokens: int | None = 256) -> Run:
    run = sample_run()
    totals = run.totals.model_copy(update={"fed": of, "image_tokens": tokens})
    return run.model_copy(
        update={"totals": totals, "samples": samples, "settings": run.settings | {"image_size": asked}}
    )


def _one(value: int) -> Range:
    return Range(least=value, median=value, most=value)


SQUARE = FedTotals(images=4, width=_one(224), height=_one(224), tokens=_one(64))


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (_run(SQUARE), "images 224 × 224 px, 64 tokens each"),
        (
            _run(SQUARE.model_copy(update={"width": _one(336), "height": _one(336), "tokens": _one(576)})),
            "images 336 × 336 px (224 asked), 576 tokens each",
        ),
        (_run(SQUARE.model_copy(update={"tokens": None})), "images 224 × 224 px, 256 tokens in all"),
        (
            _run(
                FedTotals(
                    images=4,
                    width=Range(least=168, median=300, most=560),
                    height=Range(least=112, median=200, most=448),
                    tokens=Range(least=24, median=80.5, most=320),
                ),
                asked="native",
            ),
            "images 168-560 × 112-448 px (native), 24-320 tokens each (median 80.5)",
        ),
        (
            _run(FedTotals(images=5, without=1, width=_one(224), height=_one(224), tokens=_one(64))),
            "5 images in 4 samples (1 without), 224 × 224 px, 64 tokens each",
        ),
        (
            _run(FedTotals(images=0, videos=4, frames=32, width=_one(112), height=_one(112), tokens=_one(64))),
            "4 videos (32 frames as fed) in 4 samples, 112 × 112 px (224 asked), 64 tokens each",
        ),
        (_run(FedTotals(images=0, without=4), tokens=0), "text only, no images"),
        (_run(None), "224 px (64 image tokens)"),
        (_run(None, asked="native"), None),
    ],
)
def test_what_was_fed_is_told_as_it_was(run: Run, told: str | None) -> None:
    """Sizes and tokens are those of the processor's output; what was asked stands beside them where it differs."""
    assert fed.told(run) == told


def test_what_was_fed_stands_in_the_header() -> None:
    """It is one of the settings that stand above every report."""
    assert "images 224 × 224 px, 64 tokens each" in facts.settings(_run(SQUARE))
