"""What stands below the books: steps of a server, CUDA graphs, and layers that were inferred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from layerprof.records import Phase
from layerprof.report import units
from layerprof.trace.attribution import Attribution, GraphUse, Stack, Steps

MOST = 6
"""Kinds of steps with lines of their own; of more, those of one phase are added up."""


@dataclass(frozen=True, slots=True)
class Section:
    """A title, a table if there is one (`gives_way` as in `look.Column`), and what is said below it."""

    title: str
    note: str
    remarks: Sequence[str] = ()
    titles: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    gives_way: Sequence[int] = ()


def of(result: Attribution) -> Iterator[Section]:
    """Yield the sections that an attribution has something for."""
    if result.steps:
        yield _steps(result)
    if result.graphs:
        yield Section("CUDA graphs", "what became of their replays", list(_graphs(result.graphs)))
    if result.stacks:
        told = [_stack(stack) for stack in result.stacks]
        yield Section("Inferred layers", "no range tells them; a sequence of kernels that repeats does", told)


def _steps(result: Attribution) -> Section:
    given: dict[object, list[Steps]] = {}
    many = len(result.steps) > MOST
    for step in result.steps:
        given.setdefault(step.phase if many else step, []).append(step)
    mixed = sum(step.count for step in result.steps if step.phase is Phase.MIXED)
    works = "1 step works" if mixed == 1 else f"{units.count(mixed)} steps work"
    return Section(
        "Steps",
        "as the server's annotations tell",
        [f"{works} on prompts and on answers at once: phase `{Phase.MIXED}`."] if mixed else [],
        ("phase", "steps", "requests", "prompts", "prompt tokens", "answers", "answer tokens", "each", "%"),
        [
            (
                str(steps[0].phase or ""),
                units.count(sum(step.count for step in steps)),
                _range(step.requests for step in steps),
                _range(step.context_requests for step in steps),
                _range(step.context_tokens for step in steps),
                _range(step.generation_requests for step in steps),
                _range(step.generation_tokens for step in steps),
                units.seconds(sum(step.work_ns for step in steps) / 1e9 / max(1, sum(step.count for step in steps))),
                units.bare_percent(sum(step.work_ns for step in steps) / (result.total_ns or 1)),
            )
            for steps in given.values()
        ],
        (0, 0, 4, 3, 1, 3, 1, 0, 0),
    )


def _range(values: Iterable[int | None]) -> str:
    """Return what of several is known: one figure, or the least and the most."""
    known = sorted({value for value in values if value is not None})
    if len(known) > 1:
        return f"{units.count(known[0])} to {units.count(known[-1])}"
    return units.count(known[0]) if known else ""


def _graphs(graphs: Iterable[GraphUse]) -> Iterator[str]:
    """Yield a sentence for the graphs that were matched alike."""
    alike: dict[tuple[str | None, ...], list[GraphUse]] = {}
    for graph in graphs:
        alike.setdefault((graph.capture, graph.by, graph.why), []).append(graph)
    for (capture, by, why), same in alike.items():
        ns = sum(graph.ns for graph in same)
        kernels = "kernel" if all(graph.pieces == 1 for graph in same) else "kernels"
        yield (
            f"{units.many(len(same), 'graph')}, {units.many(sum(graph.replays for graph in same), 'replay')} of "
            f"{_range(graph.pieces for graph in same)} {kernels}, {units.seconds(ns / 1e9)}: "
            f"{'; '.join(_became(capture, by, why, same))}."
        )


def _became(capture: str | None, by: str | None, why: str | None, same: Sequence[GraphUse]) -> Iterator[str]:
    """Yield what became of replays: how much of them a capture tells, by what, why not more, and what was inferred."""
    whole = sum(graph.ns for graph in same) or 1
    matched, inferred = (sum(getattr(graph, name) for graph in same) / whole for name in ("matched_ns", "inferred_ns"))
    if capture and by:
        yield f"{f'{units.percent(matched)} ' if matched else ''}matched with {capture} by {by}"
    if why:
        yield why
    if inferred:
        yield f"{units.percent(inferred)} inferred"


def _stack(stack: Stack) -> str:
    """Say of inferred layers how sure they are: what part of the work they explain, and how alike they are."""
    of = stack.of_ns or 1
    kinds = f", {' + '.join(map(str, stack.kinds))} by their kernels" if len(stack.kinds) > 1 else ""
    spread = f"; layers of a kind differ by {units.percent(stack.spread)}" if stack.spread is not None else ""
    evidence = f". {_capital('; '.join(stack.evidence))}" if stack.evidence else ""
    around = f"{units.percent(stack.head_ns / of)} before and {units.percent(stack.tail_ns / of)} after them"
    return (
        f"{stack.name} ({units.many(stack.layers, 'layer')}{kinds}), passed {units.many(stack.calls, 'time')}: "
        f"{units.percent(stack.ns / of)} of {units.seconds(stack.of_ns / 1e9)} without ranges, "
        f"{around}{spread}{evidence}."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
