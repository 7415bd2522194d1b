"""Kinds: models that are copied, saved, loaded, moved and replicated while the profiler is on them."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from gallery.exhibit import LINEAR, WIDTH, Exhibit, Through, linear, one_call, rows, shown


class _Model(nn.Module):
    """A model that pickle finds by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = linear(), nn.Sequential(linear(), nn.ReLU())

    def forward(self, x: Tensor) -> Any:
        return self.down(self.up(x))


def _doubled(model: nn.Module) -> None:
    """Give a copy weights of its own."""
    for parameter in model.parameters():
        parameter.data.mul_(2)


@shown
def deepcopied_inside_the_block() -> Exhibit:
    """The copy has weights of its own, which it runs, and nothing of ours on it."""

    def drive(model: Any) -> Any:
        first = model(rows())
        copied = copy.deepcopy(model)
        _doubled(copied)
        return first, copied(rows()), copied.down(rows()), model(rows()), copied

    return Exhibit(_Model, drive=drive, no_count="whether a copy's calls are the model's is not settled")


@shown
def deepcopied_in_its_call() -> Exhibit:
    """A child is copied inside the call and the copy runs, as an average of weights is kept."""

    def forward(m: Any, x: Tensor) -> Any:
        copied = copy.deepcopy(m.layer)
        _doubled(copied)
        m.kept = [copied]
        return m.layer(copied(x))

    return Exhibit(lambda: Through(forward, layer=nn.Sequential(linear())), calls=one_call, flops=2 * LINEAR)


@shown
def copied_shallowly() -> Exhibit:
    """copy.copy: another module with the same parts, of which one is replaced then."""

    def drive(model: Any) -> Any:
        first = model(rows())
        copied = copy.copy(model)
        copied._modules = dict(copied._modules)
        copied._modules["up"] = nn.Identity()
        return first, copied(rows()), model(rows()), sorted(copied.__dict__)

    return Exhibit(_Model, drive=drive, no_count="whether a copy's calls are the model's is not settled")


@shown
def pickled_inside_the_block() -> Exhibit:
    """The whole model through pickle; what comes back runs its own weights."""

    def drive(model: Any) -> Any:
        first = model(rows())
        back = pickle.loads(pickle.dumps(model))
        _doubled(back)
        return first, back(rows()), back, model(rows())

    return Exhibit(_Model, drive=drive, no_count="whether a copy's calls are the model's is not settled")


@shown
def saved_inside_the_block() -> Exhibit:
    """torch.save of the whole model and of its state, as a checkpoint in a loop is written."""

    def drive(model: Any) -> Any:
        first = model(rows())
        whole, state = io.BytesIO(), io.BytesIO()
        torch.save(model, whole)
        torch.save({"model": model.state_dict(), "child": model.down}, state)
        whole.seek(0)
        state.seek(0)
        back = torch.load(whole, weights_only=False)
        return first, back(rows()), back, torch.load(state, weights_only=False), model(rows())

    return Exhibit(_Model, drive=drive, no_count="whether a copy's calls are the model's is not settled")


@shown
def saved_in_its_call() -> Exhibit:
    """A child is saved inside the call."""

    def forward(m: Any, x: Tensor) -> Any:
        file = io.BytesIO()
        torch.save(m.layer, file)
        return m.layer(x), sorted(m.layer.state_dict()), pickle.loads(pickle.dumps(m.layer))(x)

    return Exhibit(lambda: Through(forward, layer=_Model()), calls=one_call, flops=4 * LINEAR)


@shown
def loaded_inside_the_block() -> Exhibit:
    """Other weights are loaded between two calls, copied in and assigned."""

    def drive(model: Any) -> Any:
        first = model(rows())
        state = {name: value * 2 for name, value in model.state_dict().items()}
        model.load_state_dict(state)
        second = model(rows())
        model.load_state_dict({name: value + 1 for name, value in state.items()}, assign=True)
        return first, second, model(rows())

    return Exhibit(_Model, drive=drive, flops=6 * LINEAR)


@shown
def replicated() -> Exhibit:
    """Copies as DataParallel makes them, whose weights are set afterwards: they run their own."""

    def drive(model: Any) -> Any:
        first = model(rows())
        replica = model._replicate_for_data_parallel()
        up = model.up._replicate_for_data_parallel()
        up._parameters = {}
        up.weight, up.bias = torch.eye(WIDTH), torch.zeros(WIDTH)
        replica._modules["up"] = up
        return first, replica(rows()), up(rows()), sorted(replica.__dict__), sorted(up.__dict__)

    return Exhibit(_Model, drive=drive, no_count="whether a copy's calls are the model's is not settled")


@shown
def data_parallel_root() -> Exhibit:
    """DataParallel without a GPU hands the call on."""
    return Exhibit(lambda: nn.DataParallel(_Model()), calls=one_call, flops=2 * LINEAR)


@shown
def wrapped_inside_the_block() -> Exhibit:
    """The user wraps the model in another one and calls that."""

    def drive(model: Any) -> Any:
        wrapped = nn.DataParallel(nn.Sequential(model, nn.Tanh()))
        return wrapped(rows()), model(rows())

    return Exhibit(_Model, drive=drive, flops=4 * LINEAR)


@shown
def moved_inside_the_block() -> Exhibit:
    """Another dtype, and back, between calls."""

    def drive(model: Any) -> Any:
        first = model(rows())
        second = model.double()(rows().double())
        return first, second, model.to(torch.bfloat16)(rows().bfloat16()), model.float()(rows())

    return Exhibit(_Model, drive=drive, flops=8 * LINEAR)


@shown
def walks_over_itself() -> Exhibit:
    """It applies functions to all modules, asks for names and reprs, and switches gradients inside a call."""

    def forward(m: Any, x: Tensor) -> Any:
        names = [name for name, _ in m.named_modules()]
        m.apply(lambda part: part.requires_grad_(False))
        return m.layer(x), names, repr(m.layer), [type(part).__name__ for part in m.modules()]

    return Exhibit(lambda: Through(forward, layer=_Model()), calls=one_call, flops=2 * LINEAR)
