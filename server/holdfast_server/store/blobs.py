"""The blob store: immutable bytes under content-addressed names.

`file_blobs.FileBlobs` keeps them in a folder; an object store can take its
place, since nothing here needs more than put-if-absent.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator

_NAME = re.compile(r"[0-9a-f]{64}")


def is_blob_name(name: str) -> bool:
    """Whether this is 64 lower-case hex digits: the only names there are."""
    return _NAME.fullmatch(name) is not None


def check_blob_name(name: str) -> str:
    """The name itself; ValueError when it is none."""
    if not is_blob_name(name):
        raise ValueError("a blob's name is 64 lower-case hex digits")
    return name


class BlobStore(ABC):
    """Named immutable bytes.

    Thread: safe on any thread; every method may block on I/O, so none is
    called on the event loop.

    Errors: ValueError for a malformed name; `HoldfastError` with STORE_FULL
    when space runs out and INTERNAL for any other failed operation.
    """

    @abstractmethod
    def put(self, name: str, data: bytes) -> bool:
        """Store the bytes durably; False when they were there already.

        Whatever else lay under the name (torn, rotten, foreign) is replaced.
        Two concurrent puts of one new name may both answer True.
        """

    @abstractmethod
    def get(self, name: str, *, limit: int | None = None) -> bytes:
        """The bytes as they lie there, at most the first `limit`, unverified. Raises `BlobMissing`."""

    @abstractmethod
    def size(self, name: str) -> int:
        """How many bytes lie there. Raises `BlobMissing`."""

    @abstractmethod
    def delete(self, name: str) -> bool:
        """Remove a blob; False when there was none. Not durable: a crash may bring it back."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Every name, in no order. Blobs put or deleted meanwhile may or may not appear."""

    @abstractmethod
    def close(self) -> None:
        """Release what is held. Idempotent."""
