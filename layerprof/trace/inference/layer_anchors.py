"""Candidates for one kernel a layer in a sequence of kernels, and how well each explains the sequence. Pure, numpy.

An anchor is a kernel that every layer has once, whatever else differs between layers. Names propose some (attention
that follows a feed-forward part), counting others (names, pairs and triples of names that occur equally often).
Consecutive anchors that belong to one stack are a chain.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from layerprof.trace.inference.alignment import Side, fit
from layerprof.trace.inference.kernel_sequence import COARSE, EXACT, NUMBERLESS, Kernels, Numbers
from layerprof.trace.kernel_names import Does

LEAST_NAMED = 3
"""Layers that a stack must have where names show attention: a loop of fewer is rather a coincidence of three towers."""
LEAST_UNNAMED = 4
"""... and where only counting finds them."""

_COUNTS = 6
"""How many of the best supported counts of a degree of coarseness are tried."""
_LONGEST_UNNAMED = 400
"""Kernels that a layer may have where only counting finds it: what is longer is rather a whole step."""
_IRREGULAR = 0.6
"""Variance of the logarithm of gaps beyond which a name marks no layers; where names come by chance it is pi^2 / 6."""
_ENOUGH = 0.5
"""Share that, once explained, ends the search for something better."""
_BETTER = 1.02
_CHANGES, _AROUND = 64, 8
"""How many places are looked at where one model's layers may end and another's begin, and how far around each."""
_NEAR = 8
"""Neighbours, on either side, to which a segment's length is compared."""

_FEED_FORWARD = (Does.ACTIVATION, Does.EXPERTS)
_STEP = (Does.EMBEDDING, Does.SAMPLE, Does.POSITIONS)
_DEGREES = ((EXACT, 1.0), (NUMBERLESS, 0.95), (COARSE, 0.85))

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chains:
    """Anchors of stacks, and what they rest on. `worth` is the share of the sequence that they explain.

    `why` has a place, {}, for what the anchors of a stack are (`mixer`).
    """

    anchors: tuple[Numbers, ...]
    why: str
    named: bool
    worth: float


def best(kernels: Kernels) -> Chains | None:
    """Return the candidate that explains most of the sequence, None where nothing repeats often enough.

    Those that names propose are asked first, then exact names before coarser ones, until one explains enough.
    """
    leader: Chains | None = None
    for candidates in itertools.chain([_named(kernels)], _counted(kernels)):
        for why, anchors, named in candidates:
            found = _chains(kernels, anchors, why, named)
            if found and (leader is None or found.worth > leader.worth * _BETTER):
                leader = found
        if leader and (leader.named or leader.worth >= _ENOUGH):
            break
    return leader


def mixer(kernels: Kernels, anchors: Numbers) -> str:
    """Return what anchors are that names proposed."""
    kinds = set(kernels.kinds[anchors].tolist())
    if kinds == {Does.SCAN}:
        return "scan kernel"
    if kinds == {Does.SOFTMAX}:
        return "softmax"
    return "attention or scan kernel" if Does.SCAN in kinds else "attention kernel"


def _named(kernels: Kernels) -> Iterator[tuple[str, Numbers, bool]]:
    """Yield anchors by names: the first mixer of positions after each feed-forward part, or after each norm."""
    for mixers in ((Does.ATTENTION, Does.SCAN), (Does.SOFTMAX,)):
        mixes = kernels.are(*mixers)
        if mixes.sum() < LEAST_NAMED:
            continue
        for kinds, what in ((_FEED_FORWARD, "feed-forward part"), ((Does.NORM, Does.NORM_PART), "norm")):
            marks = np.flatnonzero(mixes | kernels.are(*kinds))
            is_mixer = mixes[marks]
            first = is_mixer & np.append(True, ~is_mixer[:-1])
            yield f"one {{}} and what follows it up to the next {what}", marks[first], True
        return


def _counted(kernels: Kernels) -> Iterator[Iterable[tuple[str, Numbers, bool]]]:
    """Yield anchors by counting: of the names, pairs and triples that occur equally often, the most regular one."""
    for degree, word in ((EXACT, "name"), (NUMBERLESS, "name without its number"), (COARSE, "family of names")):
        symbols = kernels.symbols[degree]
        grams = symbols
        for length in (1, 2, 3):
            if length > 1 and len(grams) > 1:
                grams = np.unique(grams[:-1] * (int(symbols.max()) + 1) + symbols[length - 1 :], return_inverse=True)[1]
            why = f"a {word} that each has once" if length == 1 else f"{length} kernels in a row that each has once"
            yield [(why, anchors, False) for anchors in _regular(grams)]


def _regular(grams: Numbers) -> Iterator[Numbers]:
    """Yield where the most regular symbol is, for each of the best supported counts."""
    order = np.argsort(grams, kind="stable")
    counts = np.bincount(grams)
    ends = np.cumsum(counts)
    gaps = np.diff(order)
    inside = np.diff(grams[order]) == 0
    logs = np.where(inside, np.log(np.maximum(gaps, 1)), 0.0)
    owner = grams[order][1:]
    mean = np.bincount(owner, logs, len(counts)) / np.maximum(counts - 1, 1)
    spread = np.bincount(owner, np.where(inside, (logs - mean[owner]) ** 2, 0.0), len(counts)) / np.maximum(
        counts - 1, 1
    )
    many = np.flatnonzero((counts >= LEAST_UNNAMED) & (spread < _IRREGULAR))
    support = np.bincount(counts[many], counts[many]) if len(many) else np.zeros(0)
    for count in np.argsort(-support, kind="stable")[:_COUNTS]:
        if support[count] > 0:
            alike = many[counts[many] == count]
            symbol = alike[int(spread[alike].argmin())]
            yield order[ends[symbol] - counts[symbol] : ends[symbol]]


def _chains(kernels: Kernels, anchors: Numbers, why: str, named: bool) -> Chains | None:
    """Split anchors where one stack ends and another begins; keep what is long enough and alike, None without any."""
    least = LEAST_NAMED if named else LEAST_UNNAMED
    if len(anchors) < least:
        return None
    worth, alike = likeness(kernels, anchors)
    lengths = np.diff(anchors)
    cuts = _breaks(kernels, anchors, alike[1])
    kept, total = [], 0.0
    for first, last in zip(np.append(0, cuts + 1), np.append(cuts, len(anchors) - 1), strict=True):
        inside = slice(first, last)
        if last - first + 1 < least or not _are_layers(kernels, anchors[first : last + 1], alike[:, inside], named):
            continue
        kept.append(anchors[first : last + 1])
        total += float((worth[inside] * lengths[inside]).sum()) * (last - first + 1) / max(last - first, 1)
    return Chains(tuple(kept), why, named, total / len(kernels)) if kept else None


def _are_layers(kernels: Kernels, anchors: Numbers, alike: Floats, named: bool) -> bool:
    """Return whether segments are alike, have several different kernels, and do matrix work."""
    pairs = np.maximum(alike[0], alike[1])
    if float(np.median(pairs)) < (0.3 if named else 0.5):
        return False
    length = int(np.median(np.diff(anchors)))
    middle = len(anchors) // 2 - 1
    sample = slice(int(anchors[middle]), int(anchors[middle + 1]))
    kinds = set(kernels.kinds[sample].tolist())
    work = {Does.GEMM, Does.EXPERTS} | (
        {Does.OTHER, Does.CONVOLUTION} if named else {Does.ATTENTION, Does.SCAN, Does.BACKWARD}
    )
    if _says_little(kernels.kinds[sample]):
        work.add(Does.OTHER)
    distinct = len(np.unique(kernels.symbols[EXACT][sample]))
    if not named and (length > _LONGEST_UNNAMED or _are_pieces(kernels, anchors) or not _in_order(kernels, anchors)):
        return False
    return length >= 3 and distinct >= (2 if named else 3) and bool(kinds & work)


def _says_little(kinds: Numbers) -> bool:
    """Return whether most kernels' names say nothing; then those may do matrix work."""
    told = kinds[(kinds != Does.COPY) & (kinds != Does.FILL)]
    return 2 * int((told == Does.OTHER).sum()) > len(told)


def _in_order(kernels: Kernels, anchors: Numbers) -> bool:
    """Return whether neighbours, or every other one, run several kernels in one order, by names of any coarseness.

    Looked at in up to three places.
    """
    for place in {0, (len(anchors) - 1) // 2 - 1, len(anchors) - 4}:
        if place < 0 or place + 3 >= len(anchors):
            continue
        one, two, three = (
            Side.of(kernels, range(*ends)) for ends in itertools.pairwise(anchors[place : place + 4].tolist())
        )
        pairs = (fit(one, other, longest=True)[1] for other in (two, three))
        if max(pairs) < 0.4 or len(np.unique(one.families)) < 3:
            return False
    return True


def _are_pieces(kernels: Kernels, anchors: Numbers) -> bool:
    """Return whether segments are pieces of layers or of steps rather than layers.

    Of layers where about every other one has attention; of steps where a token is sampled or weights are updated, or
    where some but not all go backward.
    """
    stretch = kernels.part(int(anchors[0]), int(anchors[-1]))

    def share(*kinds: Does) -> float:
        places = np.flatnonzero(stretch.are(*kinds)) + int(anchors[0])
        return len(np.unique(np.searchsorted(anchors, places, side="right"))) / (len(anchors) - 1)

    return (
        0.3 < share(Does.ATTENTION, Does.SCAN) < 0.7
        or 0.1 < share(Does.BACKWARD) < 0.9
        or share(Does.SAMPLE, Does.OPTIMIZER) > 0.1
    )


def likeness(kernels: Kernels, anchors: Numbers) -> tuple[Floats, Floats]:
    """Return what each segment between anchors is worth, and how alike it is to the next and to the one after that.

    Alike: kernels that both have, as a share of the longer one's. Worth: the same, but a kernel that comes k times
    counts as its square root only, which tells one layer from two taken together. The best degree of coarseness counts.
    """
    count = len(anchors) - 1
    best_worth, best_alike = np.zeros(count), np.zeros((2, count))
    for degree, discount in _DEGREES:
        worth = np.zeros(count)
        for lag in (1, 2):
            alike, rooted = _shared(kernels, anchors, degree, lag)
            best_alike[lag - 1] = np.maximum(best_alike[lag - 1], alike)
            if lag == 1:
                worth = rooted * discount
        best_worth = np.maximum(best_worth, worth)
        if float(np.median(best_alike[0])) > 0.8:
            break
    return best_worth, best_alike


def _shared(kernels: Kernels, anchors: Numbers, degree: int, lag: int) -> tuple[Floats, Floats]:
    """Return the share of kernels that segments `lag` apart have in common, plain and by square roots.

    The last ones, which have no partner ahead, take the one behind.
    """
    lengths, count = np.diff(anchors), len(anchors) - 1
    if count <= lag:
        return np.zeros(count), np.zeros(count)
    symbols = kernels.symbols[degree][int(anchors[0]) : int(anchors[-1])]
    width = int(symbols.max()) + 1
    keys, amounts = np.unique(np.repeat(np.arange(count), lengths) * width + symbols, return_counts=True)
    place = np.minimum(np.searchsorted(keys, keys + lag * width), len(keys) - 1)
    found = keys[place] == keys + lag * width
    a, b = amounts[found], amounts[place[found]]
    owner = keys[found] // width
    longer = np.maximum(lengths[:-lag], lengths[lag:])
    plain = np.bincount(owner, np.minimum(a, b), count - lag) / longer
    rooted = np.bincount(owner, np.minimum(a, b) / np.sqrt(np.maximum(a, b)), count - lag) / longer
    partner = np.arange(count)
    partner[-lag:] = np.maximum(partner[-lag:] - lag, 0)
    return plain[partner], rooted[partner]


def _breaks(kernels: Kernels, anchors: Numbers, alike_over: Floats) -> Numbers:
    """Return the segments inside which a stack ends and the next begins.

    Either work of a model's beginning or end stands in it that most segments do not have (an embedding, a sampled
    token), or it is twice as long as any near it, or what stands on its two sides is not alike.
    """
    lengths = np.diff(anchors)
    padded = np.pad(lengths, _NEAR, mode="reflect" if len(lengths) > _NEAR else "symmetric")
    windows = sliding_window_view(padded, 2 * _NEAR + 1)
    typical = np.median(windows, axis=1)
    others = np.delete(windows, _NEAR, axis=1).max(axis=1)
    marked = _segments_with(kernels, anchors) & (lengths >= typical)
    long = lengths >= np.maximum(others, typical) + np.maximum(_NEAR, typical)
    over = np.append(1.0, alike_over[:-1])
    neighbours = np.maximum(np.append(lengths[:1], lengths[:-1]), np.append(lengths[1:], lengths[-1:]))
    unlike = (over < 0.25) & (lengths >= neighbours + 3)
    for place in np.flatnonzero((over < 0.25) & ~unlike)[:_CHANGES].tolist():
        unlike[place] = _changes(kernels, anchors, place)
    return np.flatnonzero(marked | long | unlike)


def _changes(kernels: Kernels, anchors: Numbers, place: int) -> bool:
    """Return whether nothing ahead of a segment is like anything behind it, and it is no whole layer of either.

    Then another model's layers begin in it.
    """
    first, last = max(place - _AROUND, 0), min(place + 1 + _AROUND, len(anchors) - 1)
    bounds = itertools.pairwise(anchors[first : last + 1].tolist())
    counts = [Counter(kernels.symbols[COARSE][start:end].tolist()) for start, end in bounds]
    here = place - first

    def alike(a: int, b: int) -> float:
        return (counts[a] & counts[b]).total() / max(counts[a].total(), counts[b].total())

    sides = [(a, b) for a in range(here) for b in range(here + 1, len(counts))]
    beside = [(here, other) for other in range(len(counts)) if other != here]
    return bool(sides) and max(alike(*pair) for pair in sides) < 0.3 and max(alike(*pair) for pair in beside) < 0.8


def _segments_with(kernels: Kernels, anchors: Numbers) -> NDArray[np.bool_]:
    """Return which segments have a kernel of a model's beginning or end that at most a third of them have."""
    marks = np.flatnonzero(kernels.are(*_STEP))
    marks = marks[(marks > anchors[0]) & (marks < anchors[-1])]
    found = np.zeros(len(anchors) - 1, np.bool_)
    owner = np.searchsorted(anchors, marks, side="right") - 1
    symbols = kernels.symbols[COARSE][marks]
    for symbol in np.unique(symbols):
        has = np.unique(owner[symbols == symbol])
        if len(has) * 3 <= len(found):
            found[has] = True
    return found
