"""Whether a model is the one that it was, and how often it may be asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from layerprof.measure import fingerprint
from layerprof.measure.fingerprint import Stamp


class Switched(nn.Module):
    """A layer with a switch, a list and a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.on = False
        self.kept: list[int] = []
        self.offsets = torch.zeros(3)


def wider(model: Switched) -> None:
    """Put another layer in the place of the first."""
    model.layer = nn.Linear(4, 8)


def longer(model: Switched) -> None:
    """Make the tensor longer."""
    model.offsets = torch.zeros(4)


@pytest.mark.parametrize(
    "change",
    [
        wider,
        longer,
        lambda model: setattr(model, "on", True),
        lambda model: model.kept.append(1),
        lambda model: model.train(not model.training),
        lambda model: setattr(model, "forward", model.layer.forward),
        lambda model: model.layer.half(),
        lambda model: setattr(model, "__class__", type("Other", (Switched,), {})),
    ],
)
def test_what_work_depends_on_changes_it(change: Callable[[Switched], None]) -> None:
    """A part, a size, a switch, a list, a mode, a forward, a dtype, a class."""
    model = Switched()
    before = fingerprint.fingerprint(model)
    assert fingerprint.fingerprint(model) == before
    change(model)
    assert fingerprint.fingerprint(model) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.offsets.add_(1),
        lambda model: setattr(model, "offsets", torch.ones(3)),
        lambda model: model.layer.weight.data.zero_(),
        lambda model: model.layer.weight.sum().backward(),
        lambda model: model.load_state_dict(Switched().state_dict()),
    ],
)
def test_values_do_not(change: Callable[[Switched], None]) -> None:
    """Other numbers in tensors of the same shape make no other work, as far as one can tell."""
    model = Switched()
    before = fingerprint.fingerprint(model)
    change(model)
    assert fingerprint.fingerprint(model) == before


def test_it_is_taken_only_as_often_as_it_may_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 1 s here: with calls 2 s apart it may take a tenth of the loop, so it is taken every tenth second."""
    now, taken = [0.0], []

    def slow(model: nn.Module) -> int:
        now[0] += 1
        taken.append(now[0])
        return len(taken)

    monkeypatch.setattr(fingerprint, "fingerprint", slow)
    stamp = Stamp(Switched(), clock=lambda: now[0])
    for _ in range(30):
        stamp.now()
        now[0] += 2
    assert len(taken) == pytest.approx((taken[-1]) / 10, abs=2)
    assert stamp.now() == len(taken)
