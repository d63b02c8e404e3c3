"""The sessions that are in memory, each once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions.live import LiveSession
from holdfast_server.store.catalog import Catalog
from holdfast_server.store.damage import JournalCorrupt, JournalTooNew


class Registry:
    """Hands out one LiveSession per session, and forgets those that are neither used nor resident."""

    def __init__(self, catalog: Catalog, token_key: str) -> None:
        self._catalog = catalog
        self._token_key = token_key
        self._live: dict[str, LiveSession] = {}
        self._reading: dict[str, asyncio.Lock] = {}

    def peek(self, owner: str, session_id: str) -> LiveSession | None:
        """The session if it is in memory."""
        return self._live.get(f"{owner}/{session_id}")

    @asynccontextmanager
    async def use(self, owner: str, session_id: str) -> AsyncIterator[LiveSession]:
        """The session for the length of the block. Raises SESSION_NOT_FOUND, MODEL_MISMATCH."""
        live = self.retain(await self._find(owner, session_id))
        try:
            yield live
        finally:
            self.release(live)

    @property
    def generating(self) -> bool:
        """Whether any session generates."""
        return any(live.generating for live in self._live.values())

    def retain(self, live: LiveSession) -> LiveSession:
        """Keeps the session in memory until `release`; for work that outlives its call."""
        live.users += 1
        return live

    def release(self, live: LiveSession) -> None:
        """Ends one use, and forgets every session that is neither used nor resident."""
        live.users -= 1
        for unused in [live for live in self._live.values() if not live.users and not live.resident]:
            del self._live[unused.key]

    def forget(self, live: LiveSession) -> None:
        """Removes a deleted session."""
        self._live.pop(live.key, None)

    async def _find(self, owner: str, session_id: str) -> LiveSession:
        key = f"{owner}/{session_id}"
        if key in self._live:
            return self._live[key]
        # Two calls that come at once must not make two of one session.
        lock = self._reading.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                if key not in self._live:
                    self._live[key] = await self._read(owner, session_id)
                return self._live[key]
        finally:
            if not lock.locked():
                self._reading.pop(key, None)

    async def _read(self, owner: str, session_id: str) -> LiveSession:
        record = await self._catalog.get_session(owner, session_id)
        try:
            live = LiveSession(record, await self._catalog.journal(owner, record.head))
        except JournalTooNew as error:
            raise HoldfastError(
                Reason.JOURNAL_CORRUPT,
                "the session's journal was written by a newer holdfast; start that version or a newer one",
            ) from error
        except JournalCorrupt as error:
            raise HoldfastError(
                Reason.JOURNAL_CORRUPT,
                "the session's journal is damaged in the store; restore the data directory from a backup",
            ) from error
        if live.settings.token_key != self._token_key:
            raise HoldfastError(
                Reason.MODEL_MISMATCH,
                f"the session was made with the model {record.model!r}, whose tokens are not this model's; "
                "start the server with that model and its projector",
            )
        return live
