"""A card that captures CUDA graphs, on a CPU: what a graph may and may not do is as there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from layerprof.machine import internals

T = TypeVar("T")


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)


@dataclass
class Operation:
    """One operator as it was captured, with the tensors that it reads, writes and gives."""

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: list[Tensor]

    def run(self) -> None:
        """Run it on what its tensors hold now; its results go where they went when it was captured."""
        schema = internals.schema(self.operator)
        assert schema is not None
        if schema.view:
            return
        result = list(tensors(self.operator(*self.args, **self.kwargs)))
        if not schema.written:
            for place, tensor in zip(self.given, result, strict=True):
                place.copy_(tensor)


@dataclass
class FakeCard:
    """Captures operators instead of kernels: a replay runs them on the same tensors, and no Python of the model.

    What a capture runs is undone at its end, since a real one runs nothing, and looking at a tensor's contents ends it
    with an error. `warm_ups` and `replays` count.
    """

    device: object = None
    warm_ups: int = 0
    replays: int = 0
    programs: list[list[Operation]] = field(default_factory=list)

    def warmed(self, work: Callable[[], T]) -> T:
        """Run the work."""
        self.warm_ups += 1
        return work()

    def captured(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Note the work's operators."""
        program: list[Operation] = []
        undo: list[tuple[Tensor, Tensor]] = []

        def note(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            schema = internals.schema(operator)
            assert schema is not None
            if schema.name == "aten::_local_scalar_dense":
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore of it")
            given = dict(zip(schema.arguments, args, strict=False)) | kwargs
            undo.extend((t, t.clone()) for name in schema.written for t in tensors(given.get(name)))
            result = operator(*args, **kwargs)
            program.append(Operation(operator, args, kwargs, list(tensors(result))))
            return result

        try:
            with internals.answering(note):
                result = work()
        finally:
            for tensor, before in reversed(undo):
                tensor.copy_(before)
        self.programs.append(program)

        def replay() -> None:
            self.replays += 1
            with torch.no_grad():
                for operation in program:
                    operation.run()

        return replay, result
