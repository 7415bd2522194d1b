"""What the model was fed, in words: how many pictures and videos, how large, and how many tokens each became."""

from __future__ import annotations

from layerprof.records import FedTotals, Range, Run
from layerprof.report import units


def told(run: Run) -> str | None:
    """Return what was fed, e.g. `images 224 × 224 px, 64 tokens each`; None where the run does not say.

    Sizes are those that the processor handed on, whatever was asked for; where they differ, what was asked stands
    beside them. Runs that kept no sizes say what was asked and how many tokens a sample had.
    """
    fed = run.totals.fed
    if fed is None:
        return _by_settings(run)
    if not fed.images and not fed.videos:
        return "text only, no images"
    plain = fed.images == run.samples and not fed.videos and not fed.without
    if plain:
        return f"images {_of_size(run, fed)}".rstrip()
    return ", ".join(part for part in (_counts(run, fed), _of_size(run, fed)) if part)


def _by_settings(run: Run) -> str | None:
    size, tokens = run.settings.get("image_size"), run.totals.image_tokens
    if not isinstance(size, int):
        return None
    if not tokens or not run.samples:
        return f"{size} px"
    each = tokens / run.samples
    counted = f"{each:.0f} image tokens" if each.is_integer() else f"{units.number(each)} image tokens on average"
    return f"{size} px ({counted})"


def _counts(run: Run, fed: FedTotals) -> str:
    frames = f"{units.many(fed.frames, 'frame')} as fed"  # padded to whole temporal patches, where a family has such
    videos = f"{units.many(fed.videos, 'video')} ({frames})" if fed.videos else ""
    images = units.many(fed.images, "image") if fed.images else ""
    without = f"{units.count(fed.without)} without" if fed.without else ""
    return f"{' and '.join(filter(None, (images, videos)))} in {units.many(run.samples, 'sample')}" + (
        f" ({without})" if without else ""
    )


def _of_size(run: Run, fed: FedTotals) -> str:
    parts = []
    if fed.width and fed.height:
        parts.append(f"{_range(fed.width)} × {_range(fed.height)} px{_asked(run, fed.width, fed.height)}")
    if fed.tokens:
        parts.append(_tokens(fed.tokens))
    elif run.totals.image_tokens:
        parts.append(f"{units.count(run.totals.image_tokens)} tokens in all")
    return ", ".join(parts)


def _asked(run: Run, width: Range, height: Range) -> str:
    """Return what was asked for where the processor made something else of it."""
    asked = run.settings.get("image_size")
    if asked == "native":
        return " (native)"
    ends = {width.least, width.most, height.least, height.most}
    return f" ({asked} asked)" if isinstance(asked, int) and ends != {asked} else ""


def _tokens(tokens: Range) -> str:
    if tokens.least == tokens.most:
        return f"{units.many(tokens.most, 'token')} each"
    return f"{_range(tokens)} tokens each (median {units.number(tokens.median)})"


def _range(figures: Range) -> str:
    least, most = units.count(figures.least), units.count(figures.most)
    return least if figures.least == figures.most else f"{least}-{most}"
