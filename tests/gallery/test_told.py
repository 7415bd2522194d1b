"""The property has teeth: each harm that an observer could do shows as a difference between two runs."""

from __future__ import annotations

import copy
import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gallery.exhibit import Exhibit, Through, linear, rows
from gallery.modes import CountsFunctions, CountsOperators
from gallery.run import differences, run

Harm = Callable[[Any, Any], object]
"""Does something to a model, or to the input or answer of a call."""


def _build() -> nn.Module:
    return Through(lambda m, x: m.head(m.body(x)), body=nn.Sequential(linear(), nn.ReLU()), head=linear(), seen=[])


def _thread(model: Any, held: Any) -> None:
    thread = threading.Thread(target=threading.Event().wait, args=(5,), daemon=True)
    thread.start()


HARMS: dict[str, Harm] = {
    "error": lambda model, held: 1 // 0,
    "answer.x:": lambda model, held: held["x"].add_(1),
    "answer.view": lambda model, held: held.update(view=held["view"].clone()),
    "answer.y: dtype": lambda model, held: held.update(y=held["y"].double()),
    "answer.y: strides": lambda model, held: held.update(y=held["y"].T.contiguous().T),
    "answer.y: type": lambda model, held: held.update(y=nn.Parameter(held["y"])),
    "answer.again: aliasing": lambda model, held: held.update(again=copy.copy(held["again"])),
    "answer.y.grad": lambda model, held: setattr(held["y"], "grad", torch.ones(3, 8)),
    "model.seen": lambda model, held: model.seen.append(1),
    "model.forward": lambda model, held: setattr(model, "forward", model.forward),
    "model._modules.body._forward_hooks.0": lambda model, held: model.body.register_forward_hook(print),
    "model._modules.body._modules.0._parameters.weight": lambda model, held: model.body[0].weight.data.mul_(2),
    "model._modules.head._parameters.bias.grad": lambda model, held: setattr(model.head.bias, "grad", torch.ones(8)),
    "model._modules.head.training": lambda model, held: model.head.train(),
    "model._modules.head": lambda model, held: setattr(model.head, "__class__", type("Linear", (nn.Linear,), {})),
    "replaced objects": lambda model, held: setattr(model.head, "weight", nn.Parameter(model.head.weight.detach())),
    "surroundings.dispatch modes": lambda model, held: CountsOperators().__enter__(),
    "surroundings.function modes": lambda model, held: held["modes"].append(CountsFunctions().__enter__()),
    "surroundings.generator of torch": lambda model, held: torch.rand(1),
    "surroundings.generator of numpy": lambda model, held: np.random.rand(),
    "surroundings.generator of Python": lambda model, held: random.random(),
    "surroundings.gradients": lambda model, held: torch.set_grad_enabled(True),
    "surroundings.filters of warnings": lambda model, held: warnings.simplefilter("ignore"),
    "surroundings.threads": _thread,
    "warnings": lambda model, held: warnings.warn("ours", stacklevel=1),
}
"""What a run is expected to show, and how it is done. What stands after a colon only tells two apart."""


def _exhibit(harm: Harm | None) -> Exhibit:
    def drive(model: Any) -> Any:
        x = rows()
        y = model(x)
        held = {"x": x, "y": y, "view": y.view(-1), "again": x, "modes": []}
        if harm:
            harm(model, held)
        return held

    return Exhibit(_build, drive=drive, no_count="no profiler is here")


@pytest.mark.parametrize("told", HARMS)
def test_a_harm_is_told(told: str) -> None:
    """By the path at which it was done."""
    outcome = run(_exhibit(HARMS[told]), None)
    while torch.overrides._get_current_function_mode_stack():  # what the harm has left
        torch.overrides._get_current_function_mode_stack()[-1].__exit__(None, None, None)
    assert told.partition(":")[0] in differences(run(_exhibit(None), None).facts, outcome.facts)


def test_what_is_printed_is_told() -> None:
    """By Python, and by a library below it."""

    def both(model: Any, held: Any) -> None:
        import os

        print("by Python")
        os.write(2, b"from below")

    assert run(_exhibit(both), None).printed == "by Python\nfrom below"
    assert run(_exhibit(None), None).printed == ""
