"""The file of an exported checkpoint: records one after the other, each with its digest.

All integers are little-endian. The file is

    8 bytes "HOLDFAST", u32 version (1), u32 zero,
    records: 4 bytes kind, u32 zero, u64 bytes of the body, body, 32 bytes BLAKE3 of the body

in this order: HEAD, MEDI for each picture, ENTR for each journal entry, PAGE for
each page, LOGT where there are logits, MNFT, DONE. The body of DONE is the
BLAKE3 of every byte before its record, and nothing follows it. docs/format.md
says what the bodies are.

The digests are plain, so that any program can verify a file: they find damage,
not forgery. Nothing here depends on an event loop; safe on any thread, one at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from blake3 import blake3

from holdfast_server.errors import HoldfastError, Reason

VERSION = 1
_MAGIC = b"HOLDFAST"
_START = struct.Struct("<8sII")
_RECORD = struct.Struct("<4sIQ")
_DIGEST_BYTES = 32
_SKIPPED_BYTES = 1 << 20

Bytes = bytes | bytearray | memoryview
Read = Callable[[int, int], bytes]
"""(offset, size) to that part of a file, shorter only at its end."""


class Kind(StrEnum):
    """What a record holds."""

    HEAD = "HEAD"
    MEDIA = "MEDI"
    ENTRY = "ENTR"
    PAGE = "PAGE"
    LOGITS = "LOGT"
    MANIFEST = "MNFT"
    DONE = "DONE"


def refused(message: str) -> HoldfastError:
    """The file is not what it should be."""
    return HoldfastError(Reason.IMPORT_REFUSED, f"the file cannot be imported: {message}")


def too_large(message: str) -> HoldfastError:
    """The file asks for more than it may."""
    return HoldfastError(Reason.PAYLOAD_TOO_LARGE, f"the file cannot be imported: {message}")


def digest(content: Bytes) -> str:
    """Plain BLAKE3, 64 hex digits: how a file names its media and pages."""
    return blake3(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """One record whose body matches its digest."""

    kind: Kind
    body: bytes
    digest: str
    offset: int
    """Where the body begins in the file."""


class Writer:
    """Makes the bytes of a file, piece by piece."""

    def __init__(self) -> None:
        self._all = blake3()

    def start(self) -> bytes:
        """What comes first."""
        header = _START.pack(_MAGIC, VERSION, 0)
        self._all.update(header)
        return header

    def record(self, kind: Kind, body: Bytes) -> list[Bytes]:
        """One record, as pieces; the body is not copied."""
        size = memoryview(body).nbytes
        header = _RECORD.pack(kind.encode(), 0, size)
        pieces: list[Bytes] = [header, body, blake3(body).digest()]
        for piece in pieces:
            self._all.update(piece)
        return pieces

    def finish(self) -> list[Bytes]:
        """The last record."""
        return self.record(Kind.DONE, self._all.digest())


class Reader:
    """Reads a file that nobody vouches for; allocates no more for a record than its bound.

    Raises IMPORT_REFUSED for what is damaged or out of order, PAYLOAD_TOO_LARGE
    for a record that declares more than its bound.
    """

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self._at = 0
        self._all = blake3()

    def start(self) -> None:
        """Reads what comes first."""
        magic, version, zero = _START.unpack(self._take(_START.size))
        if magic != _MAGIC or zero:
            raise refused("it is no exported checkpoint")
        if version != VERSION:
            raise refused(f"it has version {version}, and this server reads {VERSION}")

    def next(self, kind: Kind, bound: int) -> Record:
        """The next record, which must be of this kind and have a body of at most `bound` bytes."""
        size = self._header({kind: bound})
        offset = self._at
        body = self._take(size)
        return Record(kind, body, self._verified(blake3(body).digest()), offset)

    def skip(self, kind: Kind) -> str:
        """Reads the next record, whatever its size, and keeps only its digest."""
        size = self._header({kind: self._size})
        hasher = blake3()
        while size:
            part = self._take(min(size, _SKIPPED_BYTES))
            hasher.update(part)
            size -= len(part)
        return self._verified(hasher.digest())

    def finish(self) -> None:
        """Reads the last record; nothing may come after it."""
        expected = self._all.digest()
        if self.next(Kind.DONE, _DIGEST_BYTES).body != expected:
            raise refused("it does not match its own digest")
        if self._at != self._size:
            raise refused("it goes on after its end")

    def _header(self, bounds: Mapping[Kind, int]) -> int:
        name, zero, size = _RECORD.unpack(self._take(_RECORD.size))
        kind = next((kind for kind in bounds if kind.encode() == name), None)
        if kind is None or zero:
            raise refused(f"{' or '.join(bounds)} should come next, and something else does")
        if size > bounds[kind]:
            raise too_large(f"a {kind} record declares {size} bytes; at most {bounds[kind]} are taken here")
        return int(size)

    def _verified(self, found: bytes) -> str:
        if self._take(_DIGEST_BYTES) != found:
            raise refused("a record does not match its digest")
        return found.hex()

    def _take(self, size: int) -> bytes:
        if size > self._size - self._at:
            raise refused("it is cut short")
        data = self._read(self._at, size)
        if len(data) != size:
            raise refused("it is cut short")
        self._at += size
        self._all.update(data)
        return data
