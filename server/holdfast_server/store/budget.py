"""A bound on the bytes that blobs may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.store.blobs import BlobStore
from holdfast_server.store.damage import BlobMissing

LOW_WATER = 0.9
"""The share of the budget that making room goes down to, so that it is not made blob by blob."""


class OverBudget(HoldfastError):
    """A blob did not fit: STORE_FULL, unless `Store.with_room` finds room for it."""

    def __init__(self, wanted: int, limit: int) -> None:
        super().__init__(
            Reason.STORE_FULL,
            f"the store's budget of {limit} bytes is used up; delete checkpoints or sessions, or start the "
            "server with a larger --store-bytes",
        )
        self.wanted = wanted


class BudgetedBlobs(BlobStore):
    """Blobs that together stay within `limit` bytes.

    The total is counted once, when this is made, and kept from then on; nobody
    else may write to the blobs below. Safe on any thread, as any blob store.
    """

    def __init__(self, blobs: BlobStore, limit: int) -> None:
        self._blobs = blobs
        self._changed = Condition()
        self._busy: set[str] = set()
        self.limit = limit
        self.used = sum(self._size(name) for name in blobs.names())

    def put(self, name: str, data: bytes) -> bool:
        with self._counted(name) as before:
            with self._changed:
                growth = len(data) - before
                if growth > 0 and self.used + growth > self.limit:
                    raise OverBudget(growth, self.limit)
                self.used += growth
            try:
                return self._blobs.put(name, data)
            finally:  # also when it failed: what lies there now counts
                self._add(self._size(name) - before - growth)

    def get(self, name: str, *, limit: int | None = None) -> bytes:
        return self._blobs.get(name, limit=limit)

    def size(self, name: str) -> int:
        return self._blobs.size(name)

    def delete(self, name: str) -> bool:
        with self._counted(name) as before:
            try:
                return self._blobs.delete(name)
            finally:
                self._add(self._size(name) - before)

    def names(self) -> Iterator[str]:
        return self._blobs.names()

    def close(self) -> None:
        self._blobs.close()

    @contextmanager
    def _counted(self, name: str) -> Iterator[int]:
        """Keeps other changes of this blob out: its size until now."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._busy)
            self._busy.add(name)
        try:
            yield self._size(name)
        finally:
            with self._changed:
                self._busy.remove(name)
                self._changed.notify_all()

    def _add(self, growth: int) -> None:
        with self._changed:
            self.used += growth

    def _size(self, name: str) -> int:
        try:
            return self._blobs.size(name)
        except BlobMissing:
            return 0
