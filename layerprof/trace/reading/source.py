"""The bytes of a trace file as UTF-8, whatever they are packed and encoded in, and as far as they go. Pure, no torch.

A gzip stream that breaks off or is damaged gives all that comes out of it before that.
"""

from __future__ import annotations

import codecs
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

from layerprof.errors import TraceError

PORTION = 256 << 10
"""Most bytes that are read, or unpacked, at once."""

HEAD = 4096
"""Bytes by which the format is told."""

STANDARD_INPUT = Path("-")

_GZIP = zlib.MAX_WBITS | 16
_MAGIC = b"\x1f\x8b"
_TAR, _TAR_AT = b"ustar", 257
_BLANK = " \t\r\n\ufeff"
_OTHERS = (
    (b"PK\x03\x04", "a zip archive", "Unpack it and give the .json or .json.gz that is in it."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and give the .json or .json.gz that is in it."),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "Unpack it with `zstd -d`, or pack it with gzip instead."),
    (b"\xfd7zXZ\x00", "packed with xz", "Unpack it with `xz -d`, or pack it with gzip instead."),
    (b"BZh", "packed with bzip2", "Unpack it with `bzip2 -d`, or pack it with gzip instead."),
)
_NOT_READ = (
    "Give a trace that torch.profiler exported (.json or .json.gz): the formats of other profilers, such as "
    ".nsys-rep and .pftrace, are not read."
)


class Source:
    """A file's text, piece by piece. `damage` says what kept the rest from being unpacked, None where nothing did.

    Nothing is read twice, so that the file may be a pipe. Raises TraceError for a file that is no text, with what it is
    and what to do.
    """

    def __init__(self, raw: IO[bytes], path: Path) -> None:
        self.damage: str | None = None
        first = raw.read(PORTION)
        portions = chain([first], iter(lambda: raw.read(PORTION), b""))
        self._portions = self._unpacked(portions) if first.startswith(_MAGIC) else portions
        self._ahead = b""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._decoder = _decoder_of(self._filled(HEAD)[:HEAD], path)
        if self._decoder is not None:
            self._ahead = self._decoder.decode(self._ahead).encode()

    def read(self, most: int) -> bytes:
        """Return `most` bytes of UTF-8, fewer at the end only, which damage may have brought early."""
        ahead = self._filled(most)
        self._ahead = ahead[most:]
        return ahead[:most]

    def _filled(self, most: int) -> bytes:
        """Return what is read ahead, after having made it `most` bytes where there are as many."""
        portions, size = [self._ahead], len(self._ahead)
        while size < most:
            portion = next(self._portions, None)
            text = portion or b""
            if self._decoder is not None:
                text = self._decoder.decode(text, portion is None).encode()
            portions.append(text)
            size += len(text)
            if portion is None:
                break
        self._ahead = b"".join(portions)
        return self._ahead

    def _unpacked(self, portions: Iterator[bytes]) -> Iterator[bytes]:
        """Yield what a gzip file holds, all its members, as far as it can be unpacked."""
        member, packed = zlib.decompressobj(_GZIP), b""
        while packed := packed or next(portions, b""):
            if member.eof:
                packed = packed.lstrip(b"\x00")  # padding of tapes and blocks, which gzip itself passes over
                if packed and not packed.startswith(_MAGIC[: len(packed)]):
                    self.damage = "what follows its packed stream is none"
                    return
                member = zlib.decompressobj(_GZIP) if packed else member
                continue
            before = member.copy()
            try:
                yield member.decompress(packed, PORTION)
            except zlib.error as error:
                self.damage = f"its packed stream is damaged ({error})"
                yield from _until_damage(before.decompress, packed)
                return
            packed = member.unused_data if member.eof else member.unconsumed_tail
        if not member.eof:
            self.damage = "its packed stream breaks off"
            yield member.flush()


def _until_damage(unpack: Callable[[bytes], bytes], packed: bytes) -> Iterator[bytes]:
    """Yield what comes out ahead of the damaged byte: an error takes the output of its whole call with it."""
    for place in range(len(packed)):
        try:
            yield unpack(packed[place : place + 1])
        except zlib.error:
            return


def _decoder_of(head: bytes, path: Path) -> codecs.IncrementalDecoder | None:
    """Return what makes text of the bytes, None for UTF-8. Raises TraceError for what is no text."""
    encoding = json.detect_encoding(head)
    if encoding.startswith(("utf-16", "utf-32")) and _opens(head.decode(encoding, "replace")):
        return codecs.getincrementaldecoder(encoding)("replace")
    for magic, what, remedy in _OTHERS:
        if head.startswith(magic):
            raise TraceError(f"{path} is no trace as it is: it is {what}.", remedy)
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        raise TraceError(f"{path} is no trace as it is: it is a tar archive.", "Unpack it and give the trace in it.")
    if b"\x00" in head and not _opens(head.decode("utf-8", "replace")):
        raise TraceError(f"{path} is not a profiler trace: it is binary, and has no traceEvents.", _NOT_READ)
    return None


def _opens(text: str) -> bool:
    return text.lstrip(_BLANK)[:1] in ("{", "[")


def called(path: Path) -> str:
    """Return how messages call a trace file."""
    return "standard input" if path == STANDARD_INPUT else str(path)


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a trace file, packed or not by its first bytes, whatever its name; `-` is standard input."""
    if path == STANDARD_INPUT:
        yield Source(sys.stdin.buffer, Path(called(path)))
        return
    try:
        with path.open("rb") as raw:
            yield Source(raw, path)
    except FileNotFoundError:
        raise TraceError(f"There is no trace {path}.", "Check the path.") from None
    except IsADirectoryError:
        inside = sorted(p.name for p in path.rglob("*.json*"))[:5]
        hint = f"Give one of its files: {', '.join(inside)}." if inside else "Give a trace file."
        raise TraceError(f"{path} is a folder, not a trace.", hint) from None
    except PermissionError:
        raise TraceError(f"The trace {path} may not be read.", "Check its permissions.") from None
