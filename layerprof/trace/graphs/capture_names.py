"""Names of captured ranges where several captures are of different models: modules are numbered from 0 in each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layerprof.trace.graphs.captures import Capture, Scene

SAME_MODEL = 0.5
"""Captures are of one model when this share of the names in both stands in the same range in both."""

Holders = dict[str, set[str]]


def shown(captures: Iterable[Capture]) -> dict[str, Mapping[str, str]]:
    """Return for each source how names are shown that another model's capture has, too; others as they are.

    Captures of one model for several numbers of rows share their names: `RMSNorm_0` is one module in all of them. A
    draft's is another than its target's, which shows in what they stand in.
    """
    models: list[tuple[str, Holders]] = []
    result: dict[str, Mapping[str, str]] = {}
    known: dict[str, Holders] = {}
    titles: dict[str, str] = {}
    for capture in captures:
        _add(known.setdefault(capture.source, {}), _holders(capture.scene))
        titles.setdefault(capture.source, capture.title or capture.source.partition(".")[0])
    for source, holders in known.items():
        place = next((n for n, (_, other) in enumerate(models) if _same(holders, other)), len(models))
        if place == len(models):
            models.append((titles[source], {}))
        taken = {name for _, other in models[:place] for name in other}
        result[source] = {name: f"{name} in {models[place][0]}" for name in taken & set(holders)}
        _add(models[place][1], holders)
    return result


def _same(holders: Holders, other: Holders) -> bool:
    common = holders.keys() & other.keys()
    alike = sum(not holders[name].isdisjoint(other[name]) for name in common)
    return alike >= SAME_MODEL * len(common)


def _holders(scene: Scene) -> Holders:
    """Return what each range's name stands in; the outermost stand in nothing."""
    result: Holders = {}
    stacks: dict[int, list[tuple[str, int]]] = {}
    rows = zip(scene.thread.tolist(), scene.start.tolist(), scene.end.tolist(), scene.labels, strict=True)
    for thread, start, end, (name, _) in rows:
        stack = stacks.setdefault(thread, [])
        while stack and stack[-1][1] <= start:
            stack.pop()
        result.setdefault(name, set()).add(stack[-1][0] if stack else "")
        stack.append((name, end))
    return result


def _add(holders: Holders, more: Holders) -> None:
    for name, above in more.items():
        holders.setdefault(name, set()).update(above)
