"""What each layer's calls hold in memory at their peak and keep after they return, and who holds what at the walk's.

Amounts of calls are read off a level: on CUDA what torch's allocator has handed out, workspaces of kernels included; on
a CPU the storages of tensors that operators made, since no allocator there counts. What a kernel takes and gives back
within one operator is not seen on a CPU. Who holds what is told by storages everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from layerprof.hooks import kv
from layerprof.hooks.allocator import Allocator, Counters, Level
from layerprof.hooks.dispatch import Dispatch, operators_visible
from layerprof.hooks.following import Around, Following, positional
from layerprof.hooks.frames import OUTSIDE
from layerprof.hooks.resident import ELSEWHERE, by_layer, packed_by_layer
from layerprof.hooks.storages import BEFORE, Account, Size, Storages, on_device
from torch import Tensor, nn

from layerprof.machine.tensors import has_storage, inside
from layerprof.readings import Key, Layer, MemoryReading
from layerprof.records import BLOCK_KINDS, Phase

LAYER, MODULE, WEIGHTS = "layer", "module", "weights"
INPUTS: Account = ("inputs", "")
KV_CACHE: Account = ("KV cache", "")


@dataclass(slots=True)
class _Call:
    """One running call, of a located layer (`slot`) or of a module outside them; levels are in bytes.

    `began` is the level at its start and `serial` the last storage made by then, `high` the most since. `cache` is the
    one it was given and `index` its place there. `kept` is known once it has given its output.
    """

    path: str
    slot: int | None
    phase: Phase | None
    owns: bool = True
    began: int = 0
    high: int = 0
    serial: int = 0
    told: bool = False
    cache: Any = None
    index: int | None = None
    cached: int = 0
    kept: int | None = None
    kept_kv: int = 0
    inside_kv: int = 0


@dataclass(slots=True)
class _Sums:
    """What the calls of a layer in a phase come to."""

    peak: dict[Key, int] = field(default_factory=dict)
    kept: dict[Key, int] = field(default_factory=dict)
    kept_kv: dict[Key, int] = field(default_factory=dict)
    calls: dict[Key, int] = field(default_factory=dict)

    def add(self, key: Key, peak: int, kept: int, kept_kv: int, times: int) -> None:
        """Add a call that stands for so many."""
        self.peak[key] = max(self.peak.get(key, 0), peak)
        for sums, amount in ((self.kept, kept), (self.kept_kv, kept_kv), (self.calls, 1)):
            sums[key] = sums.get(key, 0) + times * amount


class LayerMemory(Following):
    """Follows the memory of located layers; `reading()` gives a `MemoryReading`.

    `device` is the one whose memory counts, with all others of its kind. `size` says how many bytes the storage of a
    tensor has, where it is not what the storage itself says; `cuda` stands in for `torch.cuda`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        *,
        device: str = "cpu",
        size: Size | None = None,
        cuda: Counters | None = None,
    ) -> None:
        super().__init__(model, layers)
        kind = device.partition(":")[0]
        self._storages = Storages(self._owner, size or on_device(kind))
        self._dispatch = Dispatch(self._storages.saw, views=True)
        self._level: Level = self._storages
        if kind == "cuda":
            self._level = Allocator(_devices(model, device), cuda)
        self._running: list[_Call] = []
        self._sums = _Sums()
        self._weights: dict[str, int] = {}
        self._packed: dict[str, int] = {}
        self._tied: dict[str, str] = {}
        self._before: int | None = None
        self._most = 0
        self._times = 1

    # --- attaching --------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        owned, self._tied = by_layer(self.model, self.layers)
        self._weights = {name: self._storages.hold(held, (WEIGHTS, name)) for name, held in owned.items()}
        if self._level is self._storages:  # objects of C++ lie on the host
            self._packed = packed_by_layer(self.model, self.layers)
        return super().__enter__()

    def _layer(self, slot: int, layer: Layer, module: nn.Module) -> Around:
        index, names = kv.layer_index(module), positional(module)
        reader = self._phase_reader(slot, layer, module)
        vision, tracker = layer.tower == "vision", self.tracker

        def opening(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            phase = Phase.VISION if vision else tracker.phase
            if layer.kind in BLOCK_KINDS and not vision:
                self._tell(phase)
            call = _Call(layer.name, slot, phase, owns=layer.found)
            if index is not None:
                call.cache, call.index = kv.cache_in(_named(names, args, kwargs)), index
            self._open(call)

        return Around(reader, opening, self._leave, lambda: self._close(slot, layer.name), lambda: None)

    def _path(self, path: str, phase: Phase | None) -> Around:
        def opening(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
            self._open(_Call(path, None, phase))

        return Around(None, opening, lambda _output: None, lambda: self._close(None, path), lambda: None)

    # --- one batch --------------------------------------------------------------------------------------------

    @contextmanager
    def batch(
        self, index: int, prompt: int | None = None, *, given: Mapping[str, Any] | None = None, times: int = 1
    ) -> Iterator[None]:
        """Follow one `generate()`, which stands for so many `times` as much.

        `given` are its tensors, which lie there before it begins.
        """
        self._times = times
        self._storages.hold(_parts(given or {}), INPUTS)
        with super().batch(index, prompt), operators_visible():
            self._begin()
            try:
                with self._attending(), self._dispatch:
                    yield
            finally:
                self._charge()
                self._running = []

    def restart(self) -> None:
        """Forget the walk's peak so far; what layers' calls held stays. For use inside a batch."""
        self._charge()
        self._most = self._level.now()
        self._storages.restart()

    @property
    def failure(self) -> Exception | None:
        """What went wrong in following last; the calls went on."""
        return self._failure or self._dispatch.failure

    def reading(self) -> MemoryReading:
        """Return what was read so far."""
        held = self._storages.at_peak()
        sums, by_storage = self._sums, self._level is self._storages
        before = held.get(BEFORE, 0) if by_storage else self._before or 0
        weights = {name: size + self._packed.get(name, 0) for name, size in self._weights.items()}
        return MemoryReading(
            peak=dict(sums.peak),
            kept=dict(sums.kept),
            kept_kv=dict(sums.kept_kv),
            calls=dict(sums.calls),
            weights={name: size for name, size in weights.items() if name != ELSEWHERE},
            weights_elsewhere=weights.get(ELSEWHERE, 0),
            at_peak={name: size for (kind, name), size in held.items() if kind == LAYER},
            kv_cache=held.get(KV_CACHE, 0),
            inputs=held.get(INPUTS, 0),
            before=before,
            outside={name: size for (kind, name), size in held.items() if kind == MODULE},
            total=self._storages.peak + sum(self._packed.values()) if by_storage else self._most,
            source="tensor storages, operator by operator" if by_storage else "torch's CUDA allocator",
            tied=dict(self._tied),
        )

    # --- calls ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin a batch: what runs under no module at all is outside the model."""
        self._level.high()  # what was used between batches is nobody's
        now = self._level.now()
        if self._before is None:
            self._before = max(now - self._storages.now(), 0)
        self._running = [_Call(OUTSIDE, None, None, began=now, high=now)]

    def _open(self, call: _Call) -> None:
        self._charge()
        call.began = call.high = self._level.now()
        call.serial = self._storages.serial
        call.cached = self._cached(call)
        self._running.append(call)

    def _leave(self, output: Any) -> None:
        """Note what a call leaves behind, its output apart: the caller has that."""
        call = self._running[-1]
        more = self._level.now() - call.began
        call.kept_kv = self._cached(call, claim=True) - call.cached if call.cache is not None else call.inside_kv
        call.kept = more - self._taken(self._storages.sizes(_parts(output), since=call.serial, but=KV_CACHE))

    def _close(self, slot: int | None, path: str) -> None:
        """End a call, and those that an exception left open inside it."""
        self._charge()
        if not any(call.slot == slot and call.path == path for call in self._running):
            return
        while True:
            call = self._running.pop()
            self._finish(call)
            if call.slot == slot and call.path == path:
                return

    def _finish(self, call: _Call) -> None:
        outer = self._running[-1]
        outer.high = max(outer.high, call.high)
        outer.inside_kv += call.kept_kv if call.slot is not None else call.inside_kv
        if call.slot is not None and call.kept is not None:
            key = (call.path, call.phase or self.tracker.phase)
            self._sums.add(key, call.high - call.began, call.kept, call.kept_kv, self._times)

    def _charge(self) -> None:
        """Give what was held since the last boundary to the innermost call."""
        high = self._level.high()
        self._most = max(self._most, high)
        if self._running:
            self._running[-1].high = max(self._running[-1].high, high)

    def _tell(self, phase: Phase) -> None:
        """Give the calls around a block its phase, if it is the first inside them: they began before it was known."""
        for call in self._running:
            if call.slot is not None and not call.told and call.phase is not Phase.VISION:
                call.phase, call.told = phase, True

    def _cached(self, call: _Call, *, claim: bool = False) -> int:
        """Return the bytes that the cache has for a call's layer; with `claim` they are the KV cache's from now on."""
        if call.cache is None or call.index is None:
            return 0
        held = _parts([kv.tensors_of(layer) for layer in kv.layers_of(call.cache, call.index)])
        if claim:
            self._storages.claim(held, KV_CACHE)
        return self._taken(self._storages.sizes(held))

    def _taken(self, sizes: Iterable[int]) -> int:
        """Return what storages of some sizes take together."""
        return sum(map(self._level.cost, sizes))

    def _owner(self) -> Account:
        """Return who is charged with what is made now: the innermost layer, else the innermost module."""
        outside = None
        for call in reversed(self._running):
            if call.owns and call.slot is not None:
                return LAYER, call.path
            if call.owns and outside is None:
                outside = call.path
        return MODULE, outside or OUTSIDE


def _named(names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[Any, Any]:
    return dict(zip((*names, *range(len(names), len(args))), args, strict=False)) | kwargs


def _parts(values: Any) -> list[Tensor]:
    """Return the tensors with memory in a call's output or inputs, through lists and dictionaries."""
    if isinstance(values, Tensor):
        return [part for part in inside(values) if has_storage(part)]
    inner: Iterable[Any] = ()
    if isinstance(values, Mapping):
        inner = values.values()
    elif isinstance(values, (list, tuple)):
        inner = values
    return [part for value in inner for part in _parts(value)]


def _devices(model: nn.Module, device: str) -> tuple[int, ...]:
    """Return the numbers of the GPUs that a model lies on, and of the one that was named."""
    found = {torch.device(device), *(t.device for t in (*model.parameters(), *model.buffers()))}
    return tuple(sorted({one.index or 0 for one in found if one.type == "cuda"}))
