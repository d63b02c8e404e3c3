"""Deletes what has expired, collects what nothing needs, looks whether the store is consistent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from holdfast_server.sessions.manager import Sessions

INTERVAL_SECONDS = 60.0
PATIENCE = 10
"""Rounds that are put off while somebody generates."""
SLICES = 20
"""Of the catalog's check, in one round."""

_logger = logging.getLogger("holdfast.janitor")


class Janitor:
    """One task beside the calls. Event loop only.

    `clock` tells the nanoseconds since the epoch that expiry is measured by.
    """

    def __init__(self, sessions: Sessions, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._sessions = sessions
        self._store = sessions.store
        self._clock = clock
        self._put_off = 0
        self._place = (0, 0)  # in the check of the catalog

    async def run(self, interval: float = INTERVAL_SECONDS) -> None:
        """Works at once, and then every `interval` seconds until it is cancelled."""
        while True:
            if self._is_time():
                try:
                    await self.tidy()
                except Exception as error:  # noqa: BLE001 (one bad round must not be the last)
                    _logger.error("tidying failed", exc_info=error)
            await asyncio.sleep(interval)

    def _is_time(self) -> bool:
        """Idle, or put off too often."""
        self._put_off = self._put_off + 1 if self._sessions.registry.generating else 0
        if self._put_off > PATIENCE:
            self._put_off = 0
        return self._put_off == 0

    async def tidy(self) -> None:
        """One round. Raises HoldfastError when the store fails."""
        now = self._clock()
        sessions = await self._expire_sessions(now)
        checkpoints = 0
        while dropped := await self._store.catalog.drop_expired(now):
            checkpoints += dropped
        blobs = await self._store.collect()
        if sessions or checkpoints or blobs:
            facts = {"sessions": sessions, "checkpoints": checkpoints, "blobs": blobs}
            _logger.info("deleted what has expired and what nothing needs", extra=facts)
        await self._check()

    async def _check(self) -> None:
        """The next slices of the catalog, so that round by round all of it is looked at."""
        for _ in range(SLICES):
            checked = await self._store.catalog.check(self._place)
            for problem in checked.problems:
                _logger.error("the store is inconsistent; run holdfast fsck: %s", problem.text)
            self._place = checked.place or (0, 0)
            if checked.place is None:
                return

    async def _expire_sessions(self, now: int) -> int:
        deleted, gone = 0, -1
        while gone:
            records = await self._store.catalog.expired_sessions(now)
            gone = sum([await self._sessions.expire(r.owner, r.session_id, now) for r in records])
            deleted += gone
        return deleted
