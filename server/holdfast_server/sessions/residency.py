"""Which sessions are in the llama.cpp context: admission and eviction.

Everything here may lose KV state at any time, since the journal is the truth:
an idle session is saved and dropped when another needs its slot or its cells,
and comes back by way of the loader.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import Engine, Feed
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions.autosave import Autosave
from holdfast_server.sessions.ledger import Ledger
from holdfast_server.sessions.live import LiveSession, Loaded
from holdfast_server.sessions.loader import Donor, Loader, find_donor
from holdfast_server.store.catalog import CheckpointRecord
from holdfast_server.store.store import Store

MAX_WAITING = 256
"""Calls that may wait for a slot; one more is refused with QUEUE_FULL."""


@dataclass(slots=True)
class _Resident:
    live: LiveSession
    pins: int = 0


@dataclass(frozen=True, slots=True)
class _Lender:
    """A session to share cells with, pinned until they are shared."""

    donor: Donor
    place: _Resident


class Residency:
    """Owns the engine's slots. Event loop only."""

    def __init__(self, engine: Engine, store: Store, autosave: Autosave) -> None:
        self._engine = engine
        self._autosave = autosave
        self._loader = Loader(engine, store)
        self._ledger = Ledger()
        self._residents: dict[str, _Resident] = {}
        """In the order of their last use."""
        self._gate = asyncio.Lock()
        self._released = asyncio.Event()
        self._waiting = 0

    @asynccontextmanager
    async def hold(
        self, live: LiveSession, cells: int, *, checkpoint: CheckpointRecord | None = None
    ) -> AsyncIterator[Loaded]:
        """Keeps `live` resident with room for `cells` cells in all while the block runs.

        A session that is not resident is loaded first, from `checkpoint` if one
        is given; what is not loaded is queued for prefill. The block is told what
        no reply has told yet. Raises QUEUE_FULL, and CHECKPOINT_CORRUPT when the
        journal cannot serve either.
        """
        async with live.loading:
            loaded, place = await self._enter(live, cells, checkpoint)
        try:
            yield loaded
        finally:
            self._leave(place)

    async def _enter(
        self, live: LiveSession, cells: int, checkpoint: CheckpointRecord | None
    ) -> tuple[Loaded, _Resident]:
        """Pins a place for `live` and loads it; the pin is gone again when that fails."""
        started = time.monotonic()
        await self._autosave.written(live)
        place, lender = await self._admit(live, cells, may_share=not live.resident and checkpoint is None)
        donor = lender.donor if lender else None
        try:
            loaded, live.unreported = live.unreported or Loaded(), None
            loaded.queue_seconds = time.monotonic() - started
            if not live.resident:
                await self._loader.load(live, checkpoint, donor, loaded)
            if donor is not None and loaded.shared_tokens < donor.cells:
                self._ledger.keep_shared(live.key, loaded.shared_tokens)
                async with self._gate:
                    await self._make_room(live, cells, None)
        except BaseException:
            self._leave(place)
            await self.drop(live)
            raise
        finally:
            if lender is not None:
                self._leave(lender.place)
        return loaded, place

    def _leave(self, place: _Resident) -> None:
        place.pins -= 1
        if not place.pins and self._residents.get(place.live.key) is place:
            self._ledger.set(place.live.key, place.live.tokens)
        self._released.set()

    def lives(self) -> list[LiveSession]:
        """The resident sessions, the one least recently used first."""
        return [resident.live for resident in self._residents.values()]

    def fits(self, live: LiveSession, cells: int) -> bool:
        """Whether `live` could hold `cells` cells now without anyone being evicted."""
        return self._waiting == 0 and self._has_room(live, cells)

    async def feed(self, live: LiveSession, feeds: Sequence[Feed]) -> None:
        """Queues appended spans of a resident session; drops it where they do not fit beside the others."""
        if not live.resident:
            return
        if self.fits(live, live.tokens):
            self._ledger.set(live.key, live.tokens)
            await self._engine.feed(live.key, feeds)
        else:
            await self.drop(live)

    async def drop(self, live: LiveSession) -> None:
        """Gives the slot up, whatever it is doing."""
        self._residents.pop(live.key, None)
        self._ledger.remove(live.key)
        live.resident, live.pages, live.unreported = False, (), None
        live.loads += 1
        self._released.set()
        await self._engine.close(live.key)

    async def rewind(self, live: LiveSession) -> None:
        """Takes a settled slot back to what the journal says, dropping what was computed beyond it."""
        kept = cells_of.decoded(live.spans)
        held = cells_of.held_token(live.spans)
        try:
            if held is None:
                raise RuntimeError("the last picture's logits are gone")
            cells, position = cells_of.count_cells(kept), cells_of.count_positions(kept)
            await self._engine.rewind(live.key, cells, position, held)
        except RuntimeError:
            await self.drop(live)

    async def _admit(
        self, live: LiveSession, cells: int, *, may_share: bool
    ) -> tuple[_Resident, _Lender | None]:
        """Pins a place for `live`, evicting idle sessions, oldest first, and waiting where none is idle.

        Also finds and pins a session to share cells with. Only one call at a time
        gets here, so that no two wait for what the other has pinned.
        """
        if self._waiting >= MAX_WAITING:
            raise HoldfastError(
                Reason.QUEUE_FULL, "too many calls wait for a slot; try again shortly", retry_after=1.0
            )
        self._waiting += 1
        try:
            async with self._gate:
                lender = await self._make_room(live, cells, self._borrow(live) if may_share else None)
                place = self._residents.pop(live.key, None) or _Resident(live)
                self._residents[live.key] = place
                place.pins += 1
                self._ledger.set(live.key, cells)
                if lender is not None:
                    self._ledger.share(live.key, lender.donor.live.key, lender.donor.cells)
                return place, lender
        finally:
            self._waiting -= 1

    def _borrow(self, live: LiveSession) -> _Lender | None:
        """Pins the resident session that begins most like `live`."""
        donor = find_donor(live, self.lives())
        if donor is None:
            return None
        place = self._residents[donor.live.key]
        place.pins += 1
        return _Lender(donor, place)

    async def _make_room(self, live: LiveSession, cells: int, lender: _Lender | None) -> _Lender | None:
        """Waits until `live` fits; the lender, or None where it is gone or its own place was needed."""
        try:
            while not self._has_room(live, cells - (lender.donor.cells if lender else 0)):
                idle = (r.live for r in self._residents.values() if not r.pins and r.live is not live)
                victim = next(idle, None)
                if victim is not None:
                    await self._autosave.evicting(victim)
                    await self.drop(victim)
                elif lender is not None and lender.place.pins == 1:
                    self._leave(lender.place)
                    lender = None
                else:
                    self._released.clear()
                    await self._released.wait()
                if lender is not None and not lender.donor.live.resident:
                    self._leave(lender.place)
                    lender = None
        except BaseException:
            if lender is not None:
                self._leave(lender.place)
            raise
        return lender

    def _has_room(self, live: LiveSession, cells: int) -> bool:
        more = max(0, cells - self._ledger.cells(live.key))
        slot = live.key in self._residents or len(self._residents) < self._engine.info.slots
        return slot and self._ledger.used + more <= self._engine.info.cells
