"""LayerProfiler where work is done elsewhere, later, otherwise, or out of sight: counted, or told."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from own_models import TOKENS, WIDTH, Tower
from torch import nn

from layerprof import LayerProfiler
from layerprof.measure import fingerprint


@pytest.fixture
def model() -> Tower:
    """Build a user's own model, in evaluation mode."""
    torch.manual_seed(0)
    return Tower().eval()


def test_a_part_that_is_replaced_inside_the_block_is_counted_as_what_it_is(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight calls with a head of 2 outputs, which are known by then, and four with one of 32."""
    monkeypatch.setattr(fingerprint, "SHARE", 1e9)  # however long it takes here
    x = torch.randn(3, TOKENS, WIDTH)
    with LayerProfiler(model) as prof, torch.no_grad():
        for number in range(12):
            if number == 8:
                model.head = nn.Linear(WIDTH, 32, bias=False)
            model(x)
    blocks = 3 * TOKENS * 3 * 2 * 2 * WIDTH * WIDTH
    assert prof.run.totals.flops == 12 * blocks + 3 * TOKENS * 2 * WIDTH * (8 * 2 + 4 * 32)


@pytest.mark.parametrize("flops", ["once", "rerun"])
def test_work_after_the_call_is_told(flops: Any) -> None:
    """A forward that is a generator has done nothing when its call is over: what it does then is no zero."""

    class Later(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> Any:
            yield self.layer(x)

    model = Later()
    with LayerProfiler(model, flops=flops) as prof:
        list(model(torch.randn(2, WIDTH)))
    assert prof.run.totals.flops is None
    assert any("after the call" in warning for warning in prof.run.warnings)


@pytest.mark.parametrize("flops", ["off", "rerun"])
def test_calls_that_overlap_in_threads_are_told_and_not_repeated(model: nn.Module, flops: Any) -> None:
    """Two threads inside the model at once: one call is measured and holds the other; a repeat could not have that."""
    inside, done = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        if threading.current_thread() is first:
            inside.set()
            done.wait(timeout=30)

    model.get_submodule("blocks.0").register_forward_pre_hook(wait)
    x = torch.randn(1, TOKENS, WIDTH)
    with LayerProfiler(model, flops=flops) as prof:
        first = threading.Thread(target=model, args=(x,))
        first.start()
        inside.wait(timeout=30)
        model(x)
        done.set()
        first.join()
    assert prof.run.samples == 1
    assert prof.run.totals.flops is None
    assert any("several threads" in warning and "other calls (1)" in warning for warning in prof.run.warnings)


def test_what_a_repeat_would_use_up_is_not_repeated() -> None:
    """An iterator is copied where it can be; a generator cannot, and FLOPs say so."""

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor, source: Any) -> Any:
            return self.layer(x) + next(source)

    model, x = Takes().eval(), torch.randn(2, WIDTH)
    numbers = iter([1, 2, 3])
    with LayerProfiler(model, flops="rerun") as prof:
        model(x, numbers)
    assert prof.run.totals.flops == 2 * 2 * WIDTH * WIDTH
    assert next(numbers) == 2
    generator = (number for number in (1, 2, 3))
    with LayerProfiler(model, flops="rerun") as prof:
        model(x, generator)
    assert prof.run.totals.flops is None
    assert "could not be held" in str(prof.run.ledger.flops.reason)
    assert next(generator) == 2


def test_a_compiled_function_that_forward_calls_stays_compiled() -> None:
    """Its own backend answers inside the block and after it; FLOPs say why there are none."""
    ran: list[str] = []

    def backend(graph: Any, inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            ran.append("compiled")
            return graph.forward(*args)

        return run

    compiled = torch.compile(torch.sin, backend=backend)

    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> Any:
            return compiled(self.layer(x))

    model, x = Calls().eval(), torch.randn(2, WIDTH)
    with torch.no_grad():
        for flops in ("once", "together"):
            with LayerProfiler(model, flops=flops) as prof:
                model(x)
            assert prof.run.totals.flops is None
            assert "compiled" in str(prof.run.ledger.flops.reason)
        model(x)
    assert ran == ["compiled"] * 3
    torch.compiler.reset()
