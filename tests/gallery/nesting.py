"""Kinds: several profilers at once, threads, and calls inside calls."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor, nn

from gallery.exhibit import LINEAR, Exhibit, Through, linear, rows, shown
from layerprof import LayerProfiler

OVERLAP = "calls of several threads overlap"


def _model() -> nn.Module:
    return nn.Sequential(nn.Sequential(linear(), linear()), linear())


def _plain(model: Any) -> Any:
    return [model(rows()) for _ in range(3)]


@shown
def profiled_twice() -> Exhibit:
    """Another profiler on the same model, inside."""

    def drive(model: Any) -> Any:
        first = model(rows())
        with LayerProfiler(model):
            second = model(rows())
        return [first, second, model(rows())]

    return Exhibit(_model, drive=drive, plain=_plain, flops=9 * LINEAR)


@shown
def child_profiled_inside() -> Exhibit:
    """Another profiler on a child, inside."""

    def drive(model: Any) -> Any:
        first = model(rows())
        with LayerProfiler(model[0]):
            second = model(rows())
        return [first, second, model(rows())]

    return Exhibit(_model, drive=drive, plain=_plain, flops=9 * LINEAR)


@shown
def profilers_that_do_not_nest() -> Exhibit:
    """Two profilers overlap: the first to enter is the first to leave."""

    def drive(model: Any) -> Any:
        a, b = LayerProfiler(model), LayerProfiler(model[0])
        a.__enter__()
        first = model(rows())
        b.__enter__()
        second = model(rows())
        a.__exit__(None, None, None)
        third = model(rows())
        b.__exit__(None, None, None)
        return [first, second, third]

    return Exhibit(_model, drive=drive, plain=_plain, flops=9 * LINEAR)


@shown
def profiled_inside_its_forward() -> Exhibit:
    """A forward that profiles its own child in every call."""

    def forward(m: Any, x: Tensor) -> Any:
        with LayerProfiler(m.layer):
            return m.layer(x)

    return Exhibit(
        lambda: Through(forward, layer=nn.Sequential(linear())),
        drive=_plain,
        plain=lambda model: [model.layer(rows()) for _ in range(3)],
        flops=3 * LINEAR,
    )


@shown
def two_threads_at_once() -> Exhibit:
    """Two threads are inside the model at the same time; each gets its own answer."""

    def drive(model: Any) -> Any:
        model.meet = threading.Barrier(2)
        answers: dict[int, Any] = {}

        def work(n: int) -> None:
            answers[n] = model(rows() * (n + 1))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        del model.meet
        return answers[0], answers[1], len(answers), model.layer(rows())

    def forward(m: Any, x: Tensor) -> Any:
        x = m.layer(x)
        m.meet.wait(timeout=20)
        return m.layer(x)

    return Exhibit(lambda: Through(forward, layer=linear()), drive=drive, no_count=OVERLAP, again=False)


@shown
def a_pool_of_threads() -> Exhibit:
    """Many calls from a pool."""

    def drive(model: Any) -> Any:
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(lambda n: model(rows() * n), range(12)))

    return Exhibit(_model, drive=drive, no_count=OVERLAP, again=False)


@shown
def thread_inside_a_forward() -> Exhibit:
    """A forward runs one layer in a thread of its own while it runs another."""

    def forward(m: Any, x: Tensor) -> Any:
        box: list[Any] = []
        thread = threading.Thread(target=lambda: box.append(m.a(x)))
        thread.start()
        thread.join(timeout=30)
        return m.b(x), box

    return Exhibit(
        lambda: Through(forward, a=nn.Sequential(linear()), b=nn.Sequential(linear())),
        drive=_plain,
        no_count="work of other threads is not seen",
    )


@shown
def entered_in_another_thread() -> Exhibit:
    """All calls come from a thread that the block starts."""

    def drive(model: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return [pool.submit(model, rows()).result(timeout=30) for _ in range(3)]

    return Exhibit(_model, drive=drive, flops=9 * LINEAR)
