"""Checkpoints that the server takes by itself, so that coming back costs no prefill."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from enum import StrEnum
from typing import Any

from holdfast_server.engine import spans as cells_of
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions.live import LiveSession
from holdfast_server.sessions.pager import Pager, PagesGone, Snapshot
from holdfast_server.sessions.session import new_id

MAX_WRITING = 4
"""Evicted sessions being written at once; one more waits, and with it the call that needs its slot."""
IDLE_SECONDS = 5.0

_logger = logging.getLogger("holdfast.autosave")


class Mode(StrEnum):
    """When a session is saved."""

    TURN = "turn"
    """After every Generate, on eviction and on shutdown."""
    IDLE = "idle"
    """When nothing was generated for a while after a Generate, on eviction and on shutdown."""
    EVICT = "evict"
    """On eviction and on shutdown."""
    OFF = "off"


class Autosave:
    """Takes automatic checkpoints and keeps the newest few of a session. Event loop only.

    Saving never fails a call: what cannot be saved is computed again later.
    """

    def __init__(
        self,
        pager: Pager,
        spawn: Callable[[Coroutine[Any, Any, object]], asyncio.Task[object]],
        trim: Callable[[str, str, int], Coroutine[Any, Any, object]],
        *,
        mode: Mode,
        keep: int,
    ) -> None:
        self._pager = pager
        self._spawn = spawn
        self._trim = trim
        self._mode = mode
        self._keep = keep
        self._writing: dict[str, asyncio.Task[object]] = {}

    def generated(self, live: LiveSession) -> None:
        """A Generate has ended."""
        if self._mode is Mode.TURN:
            self._spawn(self.save(live))
        elif self._mode is Mode.IDLE:
            self._spawn(self._save_when_idle(live))

    async def save(self, live: LiveSession) -> None:
        """Saves what is not saved yet, if the session is resident and at rest."""
        if self._mode is Mode.OFF:
            return
        try:
            async with live.writing():
                snapshot = await self._freeze(live)
        except HoldfastError:
            return  # it is generating again, and will be saved after that, or it is gone
        if snapshot is not None:
            await self._write(live, snapshot)

    async def evicting(self, live: LiveSession) -> None:
        """The session is about to lose its slot: copies its state, and writes it in the background."""
        if self._mode is Mode.OFF:
            return
        snapshot = await self._freeze(live)
        if snapshot is None:
            return
        if len(self._writing) >= MAX_WRITING:
            await asyncio.wait(self._writing.values(), return_when=asyncio.FIRST_COMPLETED)
        task = self._spawn(self._write(live, snapshot))
        self._writing[live.key] = task
        task.add_done_callback(lambda _: self._writing.pop(live.key, None))

    async def written(self, live: LiveSession) -> None:
        """Waits until the pages of an eviction are in the store."""
        task = self._writing.get(live.key)
        if task is not None:
            await asyncio.wait([task])

    async def _save_when_idle(self, live: LiveSession) -> None:
        revision = live.record.revision
        await asyncio.sleep(IDLE_SECONDS)
        if live.record.revision == revision:
            await self.save(live)

    async def _freeze(self, live: LiveSession) -> Snapshot | None:
        """The session's state where there is something new in it, and it is settled."""
        saved = sum(page.cells for page in live.pages)
        if not live.resident or saved == cells_of.count_cells(cells_of.decoded(live.spans)):
            return None
        try:
            return await self._pager.freeze(live)
        except RuntimeError:
            return None

    async def _write(self, live: LiveSession, snapshot: Snapshot) -> None:
        session = snapshot.session
        record = replace(self._pager.describe(session, new_id("auto")), automatic=True)
        try:
            kept = await self._pager.keep(snapshot, record)
            await self._trim(session.owner, session.session_id, self._keep)
        except PagesGone:
            return
        except HoldfastError as error:
            if error.reason is not Reason.SESSION_NOT_FOUND:
                _logger.warning("a session could not be saved: %s", error.reason)
            return
        if live.loads == snapshot.loads and live.pages == snapshot.base:
            live.pages = kept.manifest.pages
