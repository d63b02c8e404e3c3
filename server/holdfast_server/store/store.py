"""A data directory: catalog, blobs, and the collection of what nobody needs.

    data_dir/
      lock             held while a server runs
      catalog.sqlite3  the catalog (and SQLite's -wal and -shm beside it)
      blobs/aa/aabb... pages and media

A blob is written before the transaction that refers to it, and deleted after
the one that stopped: a crash in between leaves a blob nobody refers to, never
a reference to no blob. The first collection after opening finds such orphans.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from holdfast_server.store import data_dir, pages
from holdfast_server.store.blobs import BlobStore
from holdfast_server.store.budget import LOW_WATER, BudgetedBlobs, OverBudget
from holdfast_server.store.catalog import Catalog
from holdfast_server.store.damage import MediaCorrupt, PageCorrupt
from holdfast_server.store.digest import Bytes, growing_digests, keyed_digest
from holdfast_server.store.file_blobs import FileBlobs
from holdfast_server.store.gate import Gate
from holdfast_server.store.pages import PageRef
from holdfast_server.store.spool import Spool
from holdfast_server.store.sql_catalog import SqlCatalog

T = TypeVar("T")
_SWEPT = 500  # blobs looked up at a time by a sweep


@dataclass(frozen=True, slots=True)
class StoredPage:
    """What `Store.put_page` did."""

    ref: PageRef
    new: bool  # False when the store had it already and nothing was written


class Store:
    """Pages and media of all owners, beside the catalog that refers to them.

    Thread: every method is called on one event loop; hashing, compression and
    I/O happen on a small pool. Errors: `HoldfastError` with STORE_FULL or
    INTERNAL, and what the methods name.
    """

    def __init__(
        self,
        catalog: Catalog,
        blobs: BlobStore,
        *,
        threads: int = 2,
        lock: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.catalog = catalog
        self.blobs = blobs
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="holdfast-store")
        self._lock = lock
        self._folder = folder
        self._spools: WeakSet[Spool] = WeakSet()
        self._gate = Gate()
        self._making_room = asyncio.Lock()
        self._keys: dict[str, bytes] = {}
        self._collection: asyncio.Task[int] | None = None
        self._wanted = False  # somebody asked for a collection that has not begun
        self._swept = False  # whether only the catalog's own notes need looking at
        self._closing = False

    @classmethod
    async def open(cls, folder: Path, *, threads: int = 2, max_bytes: int | None = None) -> Store:
        """Open or make a data directory whose blobs take at most `max_bytes`. Raises `StartupError`."""
        lock = data_dir.claim(folder)
        try:
            blobs: BlobStore = await asyncio.to_thread(FileBlobs, folder / data_dir.BLOBS)
            try:
                if max_bytes is not None:
                    blobs = await asyncio.to_thread(BudgetedBlobs, blobs, max_bytes)
                catalog = await SqlCatalog.open(folder / data_dir.CATALOG)
            except BaseException:
                blobs.close()
                raise
        except BaseException:
            os.close(lock)
            raise
        return cls(catalog, blobs, threads=threads, lock=lock, folder=folder)

    async def close(self) -> None:
        """Finish what is running and give the directory up. Idempotent."""
        self._closing = True
        if self._collection is not None:
            await asyncio.wait([self._collection])
        await asyncio.to_thread(self._pool.shutdown)
        await self.catalog.close()
        self.blobs.close()
        for spool in list(self._spools):
            spool.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Pages and media

    def writing(self) -> AbstractAsyncContextManager[None]:
        """Keeps collection out from the first put to the transaction that refers to it.

        Enter it around every put and the append or checkpoint that follows,
        and stay no longer. Not re-entrant.
        """
        return self._gate.sharing()

    async def with_room(self, write: Callable[[], Awaitable[T]]) -> T:
        """What `write` returns; when the budget refuses a blob, room is made and it runs once more.

        `write` enters and leaves `writing()` itself: collection must not wait for it.
        """
        try:
            return await write()
        except OverBudget as refusal:
            await self._make_room(refusal.wanted)
            return await write()

    async def _make_room(self, wanted: int) -> None:
        """Collect; if that is too little, drop automatic checkpoints, oldest first, to the low-water mark."""
        assert isinstance(self.blobs, BudgetedBlobs)
        async with self._making_room:
            await self.collect()
            blobs, dropped = self.blobs, 1
            if wanted > blobs.limit or blobs.used + wanted <= blobs.limit:
                return
            mark = max(0, int(LOW_WATER * blobs.limit) - wanted)
            while dropped and blobs.used > mark:
                dropped = await self.catalog.drop_automatic()
                await self.collect()

    async def put_page(self, owner: str, content: Bytes) -> StoredPage:
        """Store a page durably, inside `writing()`."""
        self._require_writing()
        key = await self._key(owner)

        def put() -> StoredPage:
            page = pages.encode(content, key)
            return StoredPage(page.ref, self.blobs.put(page.ref.digest, page.data))

        return await self._on_pool(put)

    async def get_page(
        self, owner: str, ref: PageRef, *, max_raw_bytes: int, verify_digest: bool = False
    ) -> bytes | memoryview:
        """A page's content, checked against its reference; with `verify_digest` cryptographically.

        Reads and allocates nothing larger than `max_raw_bytes` and a header.
        Raises `BlobMissing`, `PageCorrupt`.
        """
        key = await self._key(owner) if verify_digest else None

        def get() -> bytes | memoryview:
            if self.blobs.size(ref.digest) > pages.HEADER_BYTES + max_raw_bytes:
                raise PageCorrupt("the page's file is larger than any page may be")
            data = self.blobs.get(ref.digest)
            return pages.decode(data, ref, max_raw_bytes=max_raw_bytes, digest_key=key)

        return await self._on_pool(get)

    async def prefix_digests(self, owner: str, parts: Sequence[bytes]) -> list[str]:
        """The owner's keyed digest of all parts up to each one, in order."""
        key = await self._key(owner)
        return await self._on_pool(lambda: growing_digests(key, parts))

    async def media_digest(self, owner: str, data: bytes) -> str:
        """The digest that `put_media` will give the file; stores nothing."""
        key = await self._key(owner)
        return await self._on_pool(lambda: keyed_digest(key, data))

    async def put_media(self, owner: str, data: bytes) -> str:
        """Store a media file as it is, durably, inside `writing()`: its digest."""
        self._require_writing()
        key = await self._key(owner)

        def put() -> str:
            digest = keyed_digest(key, data)
            self.blobs.put(digest, data)
            return digest

        return await self._on_pool(put)

    async def get_media(self, owner: str, digest: str) -> bytes:
        """A media file, verified. Raises `BlobMissing`, `MediaCorrupt`."""
        key = await self._key(owner)

        def get() -> bytes:
            data = self.blobs.get(digest)
            if keyed_digest(key, data) != digest:
                raise MediaCorrupt(f"media {digest} was altered")
            return data

        return await self._on_pool(get)

    async def spool(self) -> Spool:
        """An empty file beside the store, for what is not to be believed yet; the caller closes it."""
        spool = await self._on_pool(lambda: Spool(self._folder))
        self._spools.add(spool)
        return spool

    # Collection

    async def collect(self) -> int:
        """Delete what nothing refers to any more: how many blobs.

        Works in slices, between which writers go on. Calls that meet share
        one collection, which a cancelled caller does not stop.
        """
        self._wanted = True
        if self._collection is None or self._collection.done():
            self._collection = asyncio.create_task(self._collect())
        return await asyncio.shield(self._collection)

    async def _collect(self) -> int:
        deleted = 0
        while self._wanted and not self._closing:
            self._wanted = False
            if not self._swept:
                deleted += await self._sweep()
            deleted += await self._collect_loose()
        return deleted

    async def _collect_loose(self) -> int:
        """Delete what the catalog knows to have lost a reference."""
        deleted, more = 0, True
        while more and not self._closing:
            async with self._gate.excluding():
                swept, self._swept = self._swept, False
                unreferenced = await self.catalog.unreferenced()
                deleted += await self._delete(unreferenced.digests)
                # The catalog forgets first: had the deletion failed, only a sweep would find them.
                self._swept = swept
            more = unreferenced.more
        return deleted

    async def _sweep(self) -> int:
        """Delete the blobs that the catalog does not know: what crashes leave behind."""
        names = await self._on_pool(lambda: list(self.blobs.names()))
        deleted = 0
        for start in range(0, len(names), _SWEPT):
            if self._closing:
                return deleted
            batch = names[start : start + _SWEPT]
            async with self._gate.excluding():
                known = await self.catalog.referenced(batch)
                deleted += await self._delete([name for name in batch if name not in known])
        self._swept = True
        return deleted

    async def _delete(self, names: Sequence[str]) -> int:
        return await self._on_pool(lambda: sum(self.blobs.delete(name) for name in names))

    # Helpers

    def _require_writing(self) -> None:
        if not self._gate.shared:
            raise RuntimeError("put outside Store.writing(): a collection could delete it")

    async def _key(self, owner: str) -> bytes:
        if owner not in self._keys:
            self._keys[owner] = await self.catalog.owner_key(owner)
        return self._keys[owner]

    async def _on_pool(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
