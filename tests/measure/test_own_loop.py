"""LayerProfiler: any module, any loop; the model is afterwards as it was before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hooks_left import hooks_on
from own_models import TOKENS, WIDTH, Tower
from torch import nn

from layerprof import LayerProfiler
from layerprof.errors import RequestError, SelectorError


@pytest.fixture
def model() -> nn.Module:
    """Build a user's own model, in evaluation mode."""
    torch.manual_seed(0)
    return Tower().eval()


def test_own_loop_gives_exact_flops_per_layer_and_books_that_close(model: nn.Module) -> None:
    """Two calls of 3 rows: each block does 2*2*W*W FLOPs a token, the head 2*W*2, and nothing is left over."""
    with LayerProfiler(model) as prof, torch.no_grad():
        for _ in range(2):
            model(torch.randn(3, TOKENS, WIDTH))
    positions = 2 * 3 * TOKENS
    rows = {row.name: row for row in prof.run.layers}
    assert rows["blocks.1"].flops == positions * 2 * 2 * WIDTH * WIDTH
    assert rows["blocks.1"].calls == 2
    assert rows["head"].flops == positions * 2 * WIDTH * 2
    books = prof.run.ledger.flops
    assert books.total == positions * (3 * 2 * 2 * WIDTH * WIDTH + 2 * WIDTH * 2)
    assert books.residual == 0
    assert prof.run.samples == 6


def test_spans_are_of_the_users_own_calls(model: nn.Module) -> None:
    """Every block has a span per call, and spans, rest and residual add up to the calls' time."""
    with LayerProfiler(model) as prof:
        model(torch.randn(1, TOKENS, WIDTH))
    books = prof.run.ledger.span_s
    assert books.layers is not None
    assert books.total is not None
    assert books.residual is not None
    assert books.layers + sum(books.rest.values()) + books.residual == pytest.approx(books.total)
    assert abs(books.residual) <= 0.01 * books.total


def test_the_model_is_as_before(model: nn.Module) -> None:
    """No hook and no wrapper stays, and the model answers the same."""
    x = torch.randn(1, TOKENS, WIDTH)
    before, attributes = model(x), set(model.__dict__)
    with LayerProfiler(model) as prof:
        inside = model(x)
    assert torch.equal(before, inside)
    assert hooks_on(model) == 0
    assert set(model.__dict__) == attributes
    assert "forward" not in model.__dict__
    assert prof.run.status == "done"


def test_a_wrapper_laid_around_the_model_inside_the_block_stays(model: nn.Module) -> None:
    """What somebody hangs on the model meanwhile is theirs: it is there after the block, and works without us."""
    x, seen = torch.ones(2, TOKENS, WIDTH), []
    with LayerProfiler(model, flops="off") as prof, torch.no_grad():
        model(x)
        inner = model.forward

        def theirs(value: torch.Tensor) -> Any:
            seen.append(tuple(value.shape))
            return inner(value)

        model.forward = theirs
        model(x)
    assert model.__dict__["forward"] is theirs
    with torch.no_grad():
        answer = model(x)
    assert torch.equal(answer, Tower.forward(model, x))  # type: ignore[arg-type]  # the fixture is a Tower
    assert len(seen) == 2
    assert (prof.run.samples, prof.rows) == (4, 4), "a call after the block is not counted"


def test_an_exception_in_the_block_goes_through_and_keeps_what_was_measured(model: nn.Module) -> None:
    """The user's exception is the user's; the spans taken so far are in the run, which says that it failed."""
    prof = LayerProfiler(model)

    def loop() -> None:
        with prof:
            model(torch.randn(1, TOKENS, WIDTH))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        loop()
    assert prof.run.status == "failed"
    assert prof.run.ledger.span_s.total is not None
    assert prof.run.ledger.flops.total == TOKENS * (3 * 2 * 2 * WIDTH * WIDTH + 2 * WIDTH * 2)
    assert hooks_on(model) == 0


def test_a_layer_that_raises_leaves_no_hook(model: nn.Module) -> None:
    """A call with a wrong shape raises torch's error, and the model is as before."""
    with pytest.raises(RuntimeError), LayerProfiler(model):
        model(torch.randn(1, TOKENS, WIDTH + 1))
    assert hooks_on(model) == 0
    assert "forward" not in model.__dict__


@pytest.mark.parametrize("flops", ["once", "together", "rerun"])
def test_every_way_of_counting_gives_the_same_and_says_what_it_cost(model: nn.Module, flops: Any) -> None:
    """All agree; where operators were watched in the calls themselves, the run says that spans hold it."""
    with LayerProfiler(model, flops=flops) as prof:
        for _ in range(9):
            model(torch.randn(2, TOKENS, WIDTH))
    assert prof.run.ledger.flops.total == 9 * 2 * TOKENS * (3 * 2 * 2 * WIDTH * WIDTH + 2 * WIDTH * 2)
    # Once: the first, two repeats that must do the same, and the 4th and the 8th repeat.
    watched = {"once": 5, "together": 9}.get(flops)
    told = f"watched in {watched} of 9 passes"
    assert [told in warning and "spans hold" in warning for warning in prof.run.warnings] == [True] * bool(watched)


def test_flops_off_is_none_with_a_reason(model: nn.Module) -> None:
    """What was not measured is None, never 0."""
    with LayerProfiler(model, flops="off") as prof:
        model(torch.randn(1, TOKENS, WIDTH))
    assert prof.run.layers[0].flops is None
    assert prof.run.ledger.flops.total is None
    assert "off" in str(prof.run.ledger.flops.reason)


def test_a_model_in_training_is_not_run_again(model: nn.Module) -> None:
    """A repeat would move batch statistics and dropout, so FLOPs are None with the way to get them."""
    model.train()
    with LayerProfiler(model, flops="rerun") as prof:
        model(torch.randn(1, TOKENS, WIDTH)).sum().backward()
    assert prof.run.ledger.flops.total is None
    assert "training" in str(prof.run.ledger.flops.reason)
    assert "in the calls themselves" in str(prof.run.ledger.flops.reason)
    assert all(p.grad is not None for p in model.parameters())


def test_a_block_without_calls_is_a_mistake(model: nn.Module) -> None:
    """Profiling one model and calling another is told when the run is asked for; the block itself raises nothing."""
    with LayerProfiler(model) as prof:
        Tower()(torch.randn(1, TOKENS, WIDTH))
    with pytest.raises(RequestError, match="no call of the model was seen"):
        _ = prof.run


def test_reading_the_run_too_early_is_a_mistake(model: nn.Module) -> None:
    """`prof.run` is there once the block has ended."""
    with LayerProfiler(model) as prof:
        with pytest.raises(RequestError, match="no run yet"):
            _ = prof.run
        model(torch.randn(1, TOKENS, WIDTH))
    assert prof.run.samples == 1


def test_wrong_selectors_and_modes_are_refused_at_once(model: nn.Module) -> None:
    """Nothing is attached when the request is wrong."""
    with pytest.raises(SelectorError):
        LayerProfiler(model, layers="blocks.77")
    with pytest.raises(RequestError, match="rerun"):
        LayerProfiler(model, flops="later")  # type: ignore[arg-type]  # the mistake is the test
    assert hooks_on(model) == 0


def test_a_model_that_is_never_called_is_refused() -> None:
    """There is nothing to attribute to."""
    with pytest.raises(RequestError, match="no layers to profile"):
        LayerProfiler(nn.ModuleList())


def test_selected_submodules_have_rows_and_the_books_stay_whole(model: nn.Module) -> None:
    """A submodule's row stands beside its block's without counting anything twice."""
    with LayerProfiler(model, layers="blocks.*.up") as prof:
        model(torch.randn(1, TOKENS, WIDTH))
    assert {row.name for row in prof.run.layers} == {f"blocks.{i}.up" for i in range(3)}
    assert prof.run.layers[0].flops == TOKENS * 2 * WIDTH * WIDTH
    assert prof.run.ledger.flops.residual == 0
    assert prof.run.ledger.flops.layers == TOKENS * 3 * 2 * 2 * WIDTH * WIDTH


def test_random_state_is_given_back(model: nn.Module) -> None:
    """The repeat for FLOPs draws no number from the user's generator."""
    torch.manual_seed(3)
    model(torch.randn(1, TOKENS, WIDTH))
    expected = torch.rand(1)
    torch.manual_seed(3)
    with LayerProfiler(model):
        model(torch.randn(1, TOKENS, WIDTH))
    assert torch.equal(torch.rand(1), expected)


def test_generate_is_one_batch(model: nn.Module) -> None:
    """A generate() that calls the model many times is one outermost call, and its rows are counted once."""

    class Generating(Tower):
        def generate(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(4):
                x = x + self(x).sum()
            return x

    own = Generating().eval()
    with LayerProfiler(own) as prof, torch.no_grad():
        own.generate(torch.randn(3, TOKENS, WIDTH))
    assert prof.run.totals.latency_s.per_batch.n == 1
    assert prof.run.samples == 3
    assert next(row for row in prof.run.layers if row.name == "blocks.0").calls == 4


@pytest.mark.parametrize("wrong", ["qwen2.5-vl-3b", None, Tower])
def test_what_is_no_model_is_refused(wrong: Any) -> None:
    """A name, nothing at all, or the class in place of its instance."""
    with pytest.raises(RequestError, match="no model") as caught:
        LayerProfiler(wrong)
    assert "nn.Module" in caught.value.remedy


@pytest.mark.parametrize("wrong", [None, ["all"], 3])
def test_a_selector_is_text(model: nn.Module, wrong: Any) -> None:
    """A list of names is written as on the command line."""
    with pytest.raises(RequestError, match="no selector"):
        LayerProfiler(model, layers=wrong)


def test_one_profiler_measures_one_block_at_a_time(model: nn.Module) -> None:
    """Entered twice it refuses; entered again it measures anew; two of them may nest."""
    prof = LayerProfiler(model)
    x = torch.randn(2, TOKENS, WIDTH)
    with prof, LayerProfiler(model) as inner:
        with pytest.raises(RequestError, match="measuring already"), prof:
            pass
        model(x)
    assert prof.run.samples == inner.run.samples == 2
    assert {row.calls for row in prof.run.layers} == {1}
    assert prof.run.totals.flops == inner.run.totals.flops
    with prof:
        model(x)
        model(x)
    assert prof.run.samples == 4
    assert hooks_on(model) == 0


def test_a_block_that_failed_before_a_call_was_finished_says_so(model: nn.Module) -> None:
    """There is no run, for the user's own exception and not because it is too early."""
    prof = LayerProfiler(model)
    assert prof.rows == 0
    with pytest.raises(ValueError, match="mine"), prof:
        raise ValueError("mine")
    with pytest.raises(RequestError, match="ended with ValueError"):
        _ = prof.run
