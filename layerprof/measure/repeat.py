"""A repeat of the user's calls, where it is asked for: on copies of the arguments, and given up before it does harm.

The model is the user's own, so each repeat is looked at: an operator that would write into a weight, a buffer or a
tensor that the model keeps is not run; attributes that changed are put back; the repeat must give an answer of the same
outline as the call did. What code keeps outside the model (a list in a closure, a file) cannot be seen from here.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from layerprof import registry
from layerprof.errors import described
from layerprof.machine.internals import modes_aside
from layerprof.machine.modules import told
from layerprof.machine.tensors import held_in, storage_of
from layerprof.measure.fingerprint import CONTAINERS, PLAIN, fingerprint, parts
from layerprof.measure.outer_calls import Entrance, repeating
from layerprof.measure.signature import outline
from layerprof.models.prompt import prompt_of
from layerprof.readings import Layer, WorkReading

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST_KEPT = 256
"""Calls whose arguments are held for a repeat; holding more could fill the memory with a user's batches."""

SHARED = (*PLAIN, FunctionType, BuiltinFunctionType, type, ModuleType)
"""What is given to a repeat as it is; what a function keeps cannot be seen. So are modules of torch."""


class _Refused(Exception):  # noqa: N818 - it is no error, and nobody sees it
    """The repeat is given up, for the reason that it carries."""


@dataclass
class Recorded:
    """An outermost call to be made again: copies of what it was given, and the state that torch was in."""

    entrance: Entrance
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    rng: torch.Tensor
    cuda_rng: list[torch.Tensor]
    casts: tuple[tuple[str, bool, torch.dtype], ...]
    model: int
    answer: Hashable = None


@dataclass
class Repeats:
    """The calls of one block that are to be made again; `why` says why they cannot be."""

    calls: list[Recorded] = field(default_factory=list)
    why: str = ""

    def note(self, model: nn.Module, entrance: Entrance, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep a call, before it is made."""
        try:
            threads = "generate_batch works on a thread of its own" if entrance == "generate_batch" else ""
            self.why = self.why or threads or self._why_not(model, (*args, *kwargs.values()))
            if not self.why:
                with modes_aside():
                    self._hold(model, entrance, args, kwargs)
        except Exception as trouble:  # arguments are the user's, and may refuse anything
            self.why = f"a call could not be held for a repeat ({described(trouble)})"
        if self.why:
            self.calls.clear()

    def _hold(self, model: nn.Module, entrance: Entrance, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        kept = {name: _copy(value) for name, value in kwargs.items() if name != "streamer"}
        self.calls.append(Recorded(entrance, _copy(args), kept, *_random_state(), _casts(), fingerprint(model)))

    def forget(self) -> None:
        """Leave out the last call, which failed."""
        if self.calls:
            self.calls.pop()

    def _why_not(self, model: nn.Module, values: Sequence[Any]) -> str:
        if model.training:
            return "the model is in training mode, where a repeat would change its state"
        if len(self.calls) == MOST_KEPT:
            return f"more than {MOST_KEPT} calls were made, and the arguments of no more are held"
        if any(told(value, "get_seq_length") for value in values):
            return "a call was given a KV cache, which it has changed since"
        return ""

    def reading(self, model: nn.Module, layers: Sequence[Layer]) -> tuple[WorkReading | None, str]:
        """Make the calls again, and return what they did; None with the reason where one of them was given up.

        The copies of their arguments are let go.
        """
        try:
            why = self.why or self._changed(model)
            return (None, why) if why else self._counted(model, layers)
        finally:
            self.calls.clear()

    def _changed(self, model: nn.Module) -> str:
        now = fingerprint(model)
        if all(call.model == now for call in self.calls):
            return ""
        return "the model was changed after a call (an attribute, a part, a mode), so that a repeat would differ"

    def _counted(self, model: nn.Module, layers: Sequence[Layer]) -> tuple[WorkReading | None, str]:
        hook = registry.load(registry.SHAPES)(model, layers)
        try:
            with hook:
                self._make_again(model, hook)
        except _Refused as refused:
            return None, str(refused)
        except Exception as failure:  # the user's figures are taken; a repeat that fails must not lose them
            return None, f"repeating the calls failed: {described(failure)}"
        return hook.reading(), ""

    def _make_again(self, model: nn.Module, hook: registry.ShapeHook) -> None:
        kept = _Kept(model)  # with the hook on it, which is to stay as long
        hook.guard = kept.refuse_to_write
        try:
            for index, call in enumerate(self.calls):
                prompt = prompt_of(model, call.entrance, call.args, call.kwargs)
                _repeat(model, call, hook.batch(index, prompt))
                kept.same()
        finally:
            kept.put_back()


def _repeat(model: nn.Module, call: Recorded, around: AbstractContextManager[Any]) -> None:
    import torch

    cuda = torch.cuda.is_available()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ()))
        torch.set_rng_state(call.rng)
        if cuda:
            torch.cuda.set_rng_state_all(call.cuda_rng)
        stack.enter_context(torch.no_grad())
        for device, enabled, dtype in call.casts:
            stack.enter_context(torch.autocast(device, dtype, enabled))
        stack.enter_context(repeating())
        entrance: Any = model.generate if call.entrance == "generate" else model
        with around:
            answer = outline(entrance(*call.args, **call.kwargs))
    if answer != call.answer:
        raise _Refused("a repeat gave another answer than the call: the model keeps something from call to call")


class _Kept:
    """What a model keeps: its tensors, which a repeat may not write, and its attributes, which are put back."""

    def __init__(self, model: nn.Module) -> None:
        self._before = [(module, dict(module.__dict__), _contents(module)) for module in model.modules()]
        self._tensors = {key for module in model.modules() for key in _storages(module)}
        self._said = ""

    def refuse_to_write(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep an operator from running that writes into what the model keeps."""
        operands = operator.operands(args, kwargs)
        for name in operator.written:
            target = operands.get(name)
            for tensor in target if isinstance(target, (list, tuple)) else (target,):
                if _storage(tensor) in self._tensors:
                    self._said = f"a repeat would write into a tensor that the model keeps ({operator.name})"
                    raise _Refused(self._said)

    def same(self) -> None:
        """Raise where an attribute is not what it was, or where something was kept from being written."""
        if self._said:  # the model may have caught it
            raise _Refused(self._said)
        for module, before, contents in self._before:
            changed = [
                name for name in {*before, *module.__dict__} if before.get(name) is not module.__dict__.get(name)
            ]
            now = _contents(module)
            changed += [name for name in contents if name in now and not _equal(contents[name], now[name])]
            if changed:
                where = f"{type(module).__name__}.{changed[0]}"
                raise _Refused(f"the model keeps something from call to call ({where}), which a repeat would change")

    def put_back(self) -> None:
        """Make every attribute what it was."""
        for module, before, contents in self._before:
            for name in module.__dict__.keys() - before.keys():
                object.__delattr__(module, name)
            module.__dict__.update({k: v for k, v in before.items() if module.__dict__.get(k) is not v})
            for name, content in contents.items():
                _restore(before[name], content)


def _contents(module: nn.Module) -> dict[str, Any]:
    return {name: type(value)(value) for name, value in vars(module).items() if type(value) in CONTAINERS}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(value is other[key] for key, value in one.items())
    if isinstance(one, set):
        return bool(one == other)
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _restore(container: Any, content: Any) -> None:
    if not _equal(content, container):
        container.clear()
        container.extend(content) if hasattr(container, "extend") else container.update(content)


def _storages(module: nn.Module) -> Iterator[int]:
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values()]
    inside = [part for value in vars(module).values() if type(value) in CONTAINERS for part in parts(value)]
    for value in (*own, *inside):
        for part in held_in(value):
            if (key := _storage(part)) is not None:
                yield key


def _storage(value: Any) -> int | None:
    import torch

    return storage_of(value) if isinstance(value, torch.Tensor) else None


def _copy(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(_copy(part) for part in value)
    if type(value) is dict:
        return {key: _copy(part) for key, part in value.items()}
    if isinstance(value, (*SHARED, torch.nn.Module)):
        return value
    return copy.deepcopy(value)  # files, queues, generators and the like refuse, and so the call is not repeated


def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    import torch

    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _casts() -> tuple[tuple[str, bool, torch.dtype], ...]:
    import torch

    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds)
