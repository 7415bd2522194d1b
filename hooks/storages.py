"""The memory that tensors lie in, seen where operators make it, and the moment at which each piece of it is freed.

Told by storage: a view has no memory of its own, several outputs may share one piece, and what is written in place
makes none. Python's weak references to a storage die with the storage itself, whoever held it last, so that a free is
known before the next allocation is looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from weakref import ref

from layerprof.hooks.dispatch import Operator
from layerprof.hooks.weights import tensors_in
from torch import Tensor, UntypedStorage

from layerprof.machine.internals import storage_key
from layerprof.machine.tensors import has_storage, inside

Account = tuple[str, str]
"""Who holds memory: the kind of holder, and its name where there are several of the kind."""

BEFORE: Account = ("before", "")
"""What lay there before anything was watched, and was seen first as an operand."""
NEW_FROM_DATA = "aten::lift_fresh"
"""What torch calls on a tensor that was just made of Python's numbers, behind the operators' back."""

Size = Callable[[Tensor], int]
"""Bytes of the storage that a tensor lies in; 0 for one that is not to be counted."""


class _Piece(ref[UntypedStorage]):
    """A storage that lives, what it is charged with, and to whom."""

    __slots__ = ("account", "key", "serial", "size")

    key: int
    size: int
    account: Account
    serial: int


def on_device(kind: str) -> Size:
    """Return what sizes storages on one kind of device ('cpu', 'cuda'), and no others."""

    def size(tensor: Tensor) -> int:
        return tensor.untyped_storage().nbytes() if tensor.device.type == kind else 0

    return size


class Storages:
    """A running account of the bytes that live.

    `owner()` is to whom a new storage is charged. `peak` is the most that lived at once, counted apart from who holds
    what; `at_peak()` is by account, at that moment.
    """

    def __init__(self, owner: Callable[[], Account], size: Size) -> None:
        self._owner, self._size = owner, size
        self._known: dict[int, _Piece] = {}
        self._freed: deque[_Piece] = deque()
        self._held: dict[Account, int] = {}
        self._snapshot: dict[Account, int] = {}
        self._at_peak = False
        self._live = self._high = self._most = 0
        self._discovered = 0
        self.serial = 0

    # --- what is asked ----------------------------------------------------------------------------------------

    def now(self) -> int:
        """Return the bytes that live, less those that were there before and found since."""
        self._settle()
        return self._live

    def high(self) -> int:
        """Return the most that lived since this was last asked, this moment included."""
        self._settle()
        high, self._high = self._high, self._live
        return high

    @staticmethod
    def cost(size: int) -> int:
        """Return what a storage of a size takes: itself."""
        return size

    @property
    def peak(self) -> int:
        """The most bytes that lived at once."""
        return self._most + self._discovered

    def at_peak(self) -> Mapping[Account, int]:
        """Return who held what at the moment of the peak."""
        held = self._held if self._at_peak else self._snapshot
        found = held | {BEFORE: held.get(BEFORE, 0) + self._discovered}
        return {account: size for account, size in found.items() if size}

    def sizes(self, tensors: Iterable[Tensor], *, since: int = -1, but: Account | None = None) -> list[int]:
        """Return the bytes of the storages of some tensors, each storage once.

        Only of those made after the moment `since` (a `serial`), and not in the account `but`.
        """
        self._settle()
        found = {piece.serial: piece for tensor in tensors if (piece := self._piece(tensor)) is not None}
        return [p.size for p in found.values() if p.serial > since and p.account != but]

    def restart(self) -> None:
        """Forget the peak so far: it is what lives now."""
        self._settle()
        self._most, self._high, self._at_peak = self._live, self._live, True

    # --- what is told -----------------------------------------------------------------------------------------

    def hold(self, tensors: Iterable[Tensor], account: Account) -> int:
        """Charge an account with storages that are there and not yet known; return their bytes."""
        self._settle()
        before = self._live
        for tensor in tensors:
            if self._piece(tensor) is None:
                self._add(tensor, account)
        return self._live - before

    def claim(self, tensors: Iterable[Tensor], account: Account) -> None:
        """Charge an account with storages that were another's."""
        self._settle()
        for tensor in tensors:
            piece = self._piece(tensor)
            if piece is not None and piece.account not in (account, BEFORE):
                self._charge(piece.account, -piece.size)
                self._charge(account, piece.size)
                piece.account = account

    def saw(
        self, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, _seconds: float
    ) -> None:
        """Take in what an operator was given and what it made (`dispatch.Reader`)."""
        self._settle()
        fresh = operator.name == NEW_FROM_DATA
        for tensor in _owning((*args, *kwargs.values())):
            if self._piece(tensor) is None:
                self._add(tensor, self._owner() if fresh else BEFORE)
        for tensor in _owning((output,)):
            piece = self._piece(tensor)
            if piece is None:
                self._add(tensor, self._owner())
            elif operator.written:
                self._resized(piece, self._size(tensor))

    # --- the account ------------------------------------------------------------------------------------------

    def _piece(self, tensor: Tensor) -> _Piece | None:
        return self._known.get(storage_key(tensor))

    def _add(self, tensor: Tensor, account: Account) -> None:
        size = self._size(tensor)
        if not size:
            return
        piece = _Piece(tensor.untyped_storage(), self._freed.append)
        self.serial += 1
        piece.key, piece.size, piece.account, piece.serial = storage_key(tensor), size, account, self.serial
        self._known[piece.key] = piece
        if account == BEFORE:  # it was there all along: it lifts every moment so far by as much
            self._discovered += size
        else:
            self._grow(account, size)

    def _resized(self, piece: _Piece, size: int) -> None:
        if size != piece.size:
            self._grow(piece.account, size - piece.size)
            piece.size = size

    def _settle(self) -> None:
        """Take off what was freed since; the order in which that happened does not matter, since nothing was made."""
        while self._freed:
            piece = self._freed.popleft()
            if self._known.get(piece.key) is piece:
                del self._known[piece.key]
            self._grow(piece.account, -piece.size)

    def _grow(self, account: Account, size: int) -> None:
        if size < 0 and self._at_peak:
            self._snapshot, self._at_peak = dict(self._held), False
        self._charge(account, size)
        self._live += size
        self._high = max(self._high, self._live)
        if self._live > self._most:
            self._most, self._at_peak = self._live, True

    def _charge(self, account: Account, size: int) -> None:
        self._held[account] = self._held.get(account, 0) + size


def _owning(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors with memory among operands or outputs."""
    for tensor in tensors_in(values):
        for part in inside(tensor):
            if has_storage(part):
                yield part
