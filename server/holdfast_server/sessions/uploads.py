"""Files on their way in: each in a spool, kept so that an interrupted upload can go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions.archive import refused
from holdfast_server.store.spool import Spool
from holdfast_server.store.store import Store

MAX_UPLOADS = 8
"""Kept at a time; the one that was idle longest gives way to a new one."""


@dataclass(eq=False, slots=True)
class Upload:
    """One file on its way in."""

    spool: Spool
    users: int = 0
    turn: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def write(self, turn: int, offset: int, data: bytes) -> None:
        """Adds to the file, for the call whose turn it is."""
        async with self.lock:
            self.check(turn)
            work = asyncio.create_task(asyncio.to_thread(self.spool.write, offset, data))
            try:
                await asyncio.shield(work)
            finally:  # a cancelled caller must not leave a thread writing
                await asyncio.wait([work])

    async def finish(self, turn: int) -> None:
        """Nobody may change the file from here on, this call included."""
        async with self.lock:
            self.check(turn)
            self.turn += 1

    def check(self, turn: int) -> None:
        """Raises IMPORT_REFUSED when another call has taken the upload over."""
        if turn != self.turn:
            raise refused("another call goes on with this upload")


class Uploads:
    """Every upload of all owners. Event loop only."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uploads: dict[str, Upload] = {}
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def use(self, key: str) -> AsyncIterator[tuple[Upload, int]]:
        """The upload, new or begun, and this call's turn at it: the last to come goes on with it.

        Raises QUEUE_FULL when there are too many at once.
        """
        async with self._opening:
            upload = self._uploads.pop(key, None)
            if upload is None:
                self._make_room()
                upload = Upload(await self._store.spool())
            self._uploads[key] = upload  # last in the order of use
        upload.turn += 1
        upload.users += 1
        try:
            yield upload, upload.turn
        finally:
            upload.users -= 1
            if not upload.users and self._uploads.get(key) is not upload:
                upload.spool.close()

    def drop(self, key: str) -> None:
        """Forgets an upload, so that the next call begins anew; its file goes with its last user."""
        upload = self._uploads.pop(key, None)
        if upload is not None and not upload.users:
            upload.spool.close()

    def _make_room(self) -> None:
        if len(self._uploads) < MAX_UPLOADS:
            return
        idle = next((key for key, upload in self._uploads.items() if not upload.users), None)
        if idle is None:
            raise HoldfastError(
                Reason.QUEUE_FULL, "too many imports at once; try again shortly", retry_after=1.0
            )
        self.drop(idle)
