"""What was fed is added up over all samples."""

from __future__ import annotations

from layerprof.books import fed
from layerprof.readings import Questions
from layerprof.records import Fed, FedTotals, Range


def _batch(*rows: tuple[Fed, ...]) -> Questions:
    empty = tuple("" for _ in rows)
    numbers = tuple(0 for _ in rows)
    nothing: tuple[tuple[str, ...], ...] = tuple(() for _ in rows)
    return Questions(0, empty, nothing, nothing, empty, numbers, numbers, numbers, numbers, fed=rows)


def test_pictures_of_several_sizes_have_their_range_and_median() -> None:
    """Sizes and tokens are those of each picture, in whatever sample or batch it stands."""
    small, wide, tall = (
        Fed(width=168, height=168, tokens=36),
        Fed(width=560, height=280, tokens=200),
        Fed(width=224, height=448, tokens=128),
    )
    assert fed.totals([_batch((small, wide), ()), _batch((tall,))]) == FedTotals(
        images=3,
        without=1,
        width=Range(least=168, median=224, most=560),
        height=Range(least=168, median=280, most=448),
        tokens=Range(least=36, median=128, most=200),
    )


def test_a_video_counts_as_one_with_its_frames() -> None:
    """Frames are no images of their own."""
    video = Fed(width=168, height=112, frames=8, tokens=96)
    found = fed.totals([_batch((video,), (Fed(width=112, height=112, tokens=16), video))])
    assert found is not None
    assert (found.images, found.videos, found.frames, found.without) == (1, 2, 16, 0)


def test_tokens_that_one_picture_does_not_tell_have_no_range() -> None:
    """A range over some of the pictures would be read as one over all."""
    found = fed.totals([_batch((Fed(width=8, height=8, tokens=4), Fed(width=8, height=8)))])
    assert found is not None
    assert found.tokens is None
    assert found.width == Range(least=8, median=8, most=8)


def test_samples_without_pictures_are_counted_and_nothing_noted_is_nothing_known() -> None:
    """A text-only run says that it had no images; a run that noted nothing says nothing."""
    assert fed.totals([_batch((), ())]) == FedTotals(images=0, without=2)
    assert fed.totals([_batch()]) is None
