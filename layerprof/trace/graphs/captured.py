"""Whose work the pieces of replays are: each replay gets the ranges that were open when its graph was captured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerprof.trace.attribution import Key, Naming
from layerprof.trace.graphs.capture_names import shown
from layerprof.trace.graphs.choosing import Chosen
from layerprof.trace.graphs.matching import NOTHING
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.steps import ServerSteps
from layerprof.trace.unreal import Unreal
from layerprof.trace.work import Pieces


def place_replays(work: Pieces, inside: Ints, unreal: Unreal, chosen: Sequence[Chosen], steps: ServerSteps) -> None:
    """Give each piece of a replay the range that was open when its launch was captured, in place.

    `inside` is the range around each launch. What was captured with no range open belongs to the one around the
    replay's launch.
    """
    known: dict[tuple[int, object], Ints] = {}
    if not chosen:
        return
    names = shown(each.capture for each in chosen if each.capture and each.match.by)
    said = steps.said_at([each.replay.moment for each in chosen], [each.replay.thread for each in chosen])
    for each, step in zip(chosen, said, strict=True):
        if each.capture is None or each.match.by is None:
            continue
        scene = each.capture.scene
        phase = step.phase if step else None
        label = known.get((id(scene), phase))
        if label is None:
            called = names[each.capture.source]
            keys: list[Key] = [(called.get(name, name), own or phase, Naming.CAPTURED) for name, own in scene.labels]
            label = known[id(scene), phase] = unreal.labels(keys)
        around = int(inside[each.replay.launch])
        first, now = unreal.add(
            scene.start, scene.end, scene.thread, label, length=scene.length, seen=each.replay.moment, holder=around
        )
        partner = each.match.partner if each.replay.part is None else each.match.partner[each.replay.part]
        has = partner != NOTHING
        pieces, launch = each.replay.pieces[has], partner[has]
        inner = scene.inner[launch]
        work.place[pieces] = np.where(inner == NOWHERE, around, first + inner)
        named = pieces[inner != NOWHERE]
        work.unreal_thread[named] = unreal.thread(scene.where[launch[inner != NOWHERE]])
        work.unreal_moment[named] = now + scene.moment[launch[inner != NOWHERE]]
