"""Steps of a server, as vLLM and SGLang annotate them: which step a moment of a thread lies in, and what each ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerprof.trace.attribution import Key, Naming, Steps
from layerprof.trace.events import Columns, Label
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.step_names import Step, parse


@dataclass(frozen=True, slots=True)
class ServerSteps:
    """Annotated steps: times and thread of each, and what its annotation says. Of two within each other the outer."""

    start: Ints
    end: Ints
    thread: Ints
    said: tuple[Step, ...]

    @classmethod
    def of(cls, columns: Columns) -> ServerSteps:
        """Find them in a trace."""
        (start, end, thread, name), _ = columns.servers.columns()
        names = columns.names.listed()
        texts = [names[number] for number in name.tolist()]
        kept: list[int] = []
        said: list[Step] = []
        until: dict[int, int] = {}
        for place in sorted(range(len(texts)), key=lambda place: (start[place], -end[place], texts[place])):
            step, where = parse(texts[place]), int(thread[place])
            if step is not None and (where not in until or end[place] > until[where]):
                kept.append(place)
                said.append(step)
                until[where] = int(end[place])
        return cls(start[kept], end[kept], thread[kept], tuple(said))

    def at(self, moments: Ints, thread: Ints) -> Ints:
        """Return the step in which each moment lies on its thread; NOWHERE for none."""
        result = np.full(len(moments), NOWHERE, np.int64)
        for number in np.unique(self.thread):
            here, mine = np.flatnonzero(thread == number), np.flatnonzero(self.thread == number)
            place = np.searchsorted(self.start[mine], moments[here], "right") - 1
            step = mine[np.maximum(place, 0)]
            result[here] = np.where((place >= 0) & (moments[here] < self.end[step]), step, NOWHERE)
        return result

    def said_at(self, moments: Sequence[int], threads: Sequence[int]) -> list[Step | None]:
        """Return what is said of the step in which each moment lies on its thread; None for none."""
        step = self.at(np.array(moments, np.int64), np.array(threads, np.int64))
        return [None if at == NOWHERE else self.said[at] for at in step.tolist()]

    def labelled(self, start: Ints, thread: Ints, label: Ints, names: list[Label]) -> tuple[Ints, list[Key]]:
        """Return labels of ranges that say the phase of their step, where they say none themselves.

        The steps' own have a label without numbers, so that those of one phase share a row.
        """
        step = self.at(start, thread)
        phases = list(dict.fromkeys([None, *(said.phase for said in self.said)]))
        number = np.array([phases.index(said.phase) for said in self.said] + [0], np.int64)
        own = np.array([phase is not None for _, phase in names], bool)
        within = np.where(own[label], 0, number[step]) if len(label) else label
        codes, label = np.unique(label * len(phases) + within, return_inverse=True)
        numbers: dict[Key, int] = {}
        rows = []
        for code in codes.tolist():
            name, phase = names[code // len(phases)]
            known = parse(name) if phase is None else None
            key = (known.label if known else name, phase or phases[code % len(phases)], Naming.RECORDED)
            rows.append(numbers.setdefault(key, len(numbers)))
        return np.array(rows, np.int64)[label] if rows else label.astype(np.int64), list(numbers)

    def told(self, moments: Ints, thread: Ints, length: Ints) -> tuple[Steps, ...]:
        """Return the steps that say the same, with the work that was launched in them."""
        step = self.at(moments, thread)
        spent = np.bincount(step[step >= 0], length[step >= 0], len(self.said)).astype(np.int64)
        alike: dict[Step, list[int]] = {}
        for place, said in enumerate(self.said):
            alike.setdefault(said, []).append(place)
        return tuple(
            Steps(
                said.name,
                said.phase,
                len(places),
                int(spent[places].sum()),
                int((self.end[places] - self.start[places]).sum()),
                said.requests,
                said.context_requests,
                said.context_tokens,
                said.generation_requests,
                said.generation_tokens,
            )
            for said, places in alike.items()
        )
