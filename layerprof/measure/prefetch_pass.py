"""What making batches ahead saves: the same bare walk twice, each batch made in its turn, and made ahead in a thread.

No measured walk makes batches ahead: a thread beside the model takes time from it, which no layer is to show.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from layerprof.measure import answering
from layerprof.measure.session import Session
from layerprof.quality.bootstrap import Draws

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layerprof.data.batching import Batch

END = object()
LEAST_BATCHES = 6
"""Fewer say nothing of how sure the ratio is."""


def run(session: Session) -> None:
    """Walk the instrumented part both ways; keep the wall seconds of each, their ratio and its interval.

    `ratio` is the walk with batches made ahead over the walk without; its 95 % interval is a seeded bootstrap over
    batches, None below `LEAST_BATCHES`.
    """
    asked, ahead = session.asked, session.asked.settings.prefetch
    alone = _walk(session, "without prefetch", asked.batches.some(asked.part))
    with Ahead(asked.batches.some(asked.part), ahead) as batches:
        overlapped = _walk(session, "with prefetch", batches)
    interval = Draws(len(alone)).ratio(overlapped, alone) if len(alone) >= LEAST_BATCHES else None
    session.read.passes["prefetch"] = {
        "ahead": ahead,
        "batches": len(alone),
        "alone_s": sum(alone),
        "overlapped_s": sum(overlapped),
        "ratio": sum(overlapped) / sum(alone),
        "ratio_ci95": interval,
    }


def _walk(session: Session, title: str, batches: Iterable[Batch]) -> list[float]:
    """Answer the batches; return the wall seconds from one answer to the next, the first from the beginning."""
    seconds, before = list[float](), time.perf_counter()
    with session.progress.stage(title, len(session.asked.part)) as advance:
        for batch in batches:
            answering.answer(session, batch)
            del batch  # before the next one is made
            now = time.perf_counter()
            seconds.append(now - before)
            before = now
            advance()
    return seconds


class Ahead:
    """Takes what an iterator makes in a thread of its own, up to `most` ahead of who asks; raises what it raised.

    The one that is being made counts, so that no more than `most` are there beside the one that was handed out.
    """

    def __init__(self, batches: Iterator[Batch], most: int) -> None:
        self._batches = batches
        self._room = threading.Semaphore(most)
        self._made: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._make, name="prefetch", daemon=True)

    def __enter__(self) -> Iterator[Batch]:
        self._thread.start()
        return self._taken()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._room.release()  # it may wait for room
        self._thread.join()
        self._made = queue.SimpleQueue()  # what nobody took is not held

    def _taken(self) -> Iterator[Batch]:
        while (made := self._made.get()) is not END:
            if isinstance(made, BaseException):
                raise made
            self._room.release()
            yield made
            del made

    def _make(self) -> None:
        try:
            while self._room.acquire() and not self._over.is_set():
                self._made.put(next(self._batches, END))
        except BaseException as error:  # it is raised where the batches are taken
            self._made.put(error)
