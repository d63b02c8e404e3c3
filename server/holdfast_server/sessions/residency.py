"""Which sessions are in the llama.cpp context: admission, eviction, loading.

Everything here may lose KV state at any time, since the journal is the truth:
an idle session is dropped when another needs its slot or its cells, and comes
back from its newest usable checkpoint, the rest computed from the journal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import Engine, EngineRefused, Feed, KvPage, KvState, MediaSpan, Span
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions import manifest as manifests
from holdfast_server.sessions.live import LiveSession
from holdfast_server.sessions.manifest import Manifest
from holdfast_server.store.catalog import CheckpointRecord
from holdfast_server.store.damage import BlobMissing, Damage
from holdfast_server.store.store import Store

MAX_WAITING = 256
"""Calls that may wait for a slot; one more is refused with QUEUE_FULL."""
_PAGE_HEADER = 64
_MAX_LOGITS = 16 * 2**20
"""Bytes: rows of four million tokens."""


@dataclass(slots=True)
class Loaded:
    """How a session came into its slot for this call; all zero when it was there already."""

    restored_tokens: int = 0
    rebuild_reason: str = ""
    """Why a checkpoint's pages could not be used, empty when they could or there were none."""
    media_reused: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    queue_seconds: float = 0.0
    state_seconds: float = 0.0
    store_seconds: float = 0.0


@dataclass(slots=True)
class _Resident:
    live: LiveSession
    cells: int = 0
    pins: int = 0


@dataclass(slots=True)
class Residency:
    """Owns the engine's slots. Event loop only."""

    engine: Engine
    store: Store
    _residents: dict[str, _Resident] = field(default_factory=dict)
    _gate: asyncio.Lock = field(default_factory=asyncio.Lock)
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: int = 0

    @asynccontextmanager
    async def hold(
        self, live: LiveSession, cells: int, *, checkpoint: CheckpointRecord | None = None
    ) -> AsyncIterator[Loaded]:
        """Keeps `live` resident with room for `cells` cells in all while the block runs.

        A session that is not resident is loaded first, from `checkpoint` or else
        from its newest usable one; what no checkpoint covers is queued for prefill.
        Raises QUEUE_FULL, and CHECKPOINT_CORRUPT when the journal cannot serve either.
        """
        started = time.monotonic()
        async with live.loading:
            resident = await self._admit(live, cells)
            try:
                loaded = Loaded(queue_seconds=time.monotonic() - started)
                if not live.resident:
                    await self._load(live, checkpoint, loaded)
            except BaseException:
                self._release(resident)
                await self.drop(live)
                raise
        try:
            yield loaded
        finally:
            self._release(resident)

    def _release(self, resident: _Resident) -> None:
        resident.pins -= 1
        if not resident.pins:
            resident.cells = resident.live.tokens
        self._released.set()

    def fits(self, live: LiveSession, cells: int) -> bool:
        """Whether `live` could hold `cells` cells now without anyone being evicted."""
        used = sum(r.cells for r in self._residents.values() if r.live is not live)
        return self._waiting == 0 and used + cells <= self.engine.info.cells and self._slot_for(live)

    async def feed(self, live: LiveSession, feeds: Sequence[Feed]) -> None:
        """Queues appended spans of a resident session; drops it where they do not fit beside the others."""
        resident = self._residents.get(live.key)
        if resident is None or not live.resident:
            return
        if self.fits(live, live.tokens):
            resident.cells = max(resident.cells, live.tokens)
            await self.engine.feed(live.key, feeds)
        else:
            await self.drop(live)

    async def drop(self, live: LiveSession) -> None:
        """Gives the slot up, whatever it is doing."""
        self._residents.pop(live.key, None)
        live.resident, live.pages = False, ()
        await self.engine.close(live.key)
        self._released.set()

    async def rewind(self, live: LiveSession) -> None:
        """Takes a settled slot back to what the journal says, dropping what was computed beyond it."""
        kept = cells_of.decoded(live.spans)
        held = cells_of.held_token(live.spans)
        try:
            if held is None:
                raise RuntimeError("the last picture's logits are gone")
            cells, position = cells_of.count_cells(kept), cells_of.count_positions(kept)
            await self.engine.rewind(live.key, cells, position, held)
        except RuntimeError:
            await self.drop(live)

    # Admission

    async def _admit(self, live: LiveSession, cells: int) -> _Resident:
        """Pins a place for `live`, evicting idle sessions, oldest first, and waiting where none is idle."""
        if self._waiting >= MAX_WAITING:
            raise HoldfastError(
                Reason.QUEUE_FULL, "too many calls wait for a slot; try again shortly", retry_after=1.0
            )
        self._waiting += 1
        try:
            async with self._gate:
                resident = self._residents.get(live.key)
                if resident is not None:
                    resident.pins += 1  # not to be evicted while it waits for its own cells
                try:
                    await self._make_room(live, cells)
                finally:
                    if resident is not None:
                        resident.pins -= 1
                resident = self._residents.pop(live.key, None) or _Resident(live)
                self._residents[live.key] = resident  # last in the order of use
                resident.cells = max(resident.cells, cells) if resident.pins else cells
                resident.pins += 1
                return resident
        finally:
            self._waiting -= 1

    async def _make_room(self, live: LiveSession, cells: int) -> None:
        while not self._has_room(live, cells):
            victim = next((r for r in self._residents.values() if not r.pins and r.live is not live), None)
            if victim is not None:
                await self.drop(victim.live)
                continue
            self._released.clear()
            await self._released.wait()

    def _has_room(self, live: LiveSession, cells: int) -> bool:
        used = sum(r.cells for r in self._residents.values() if r.live is not live)
        return used + cells <= self.engine.info.cells and self._slot_for(live)

    def _slot_for(self, live: LiveSession) -> bool:
        return live.key in self._residents or len(self._residents) < self.engine.info.slots

    # Loading

    async def _load(self, live: LiveSession, checkpoint: CheckpointRecord | None, loaded: Loaded) -> None:
        owner, key = live.record.owner, self.engine.info.compatibility_key
        if checkpoint is None:
            checkpoint = await self.store.catalog.latest_checkpoint(
                owner, live.record.head, compatibility_key=key
            )
        await self.engine.open(live.key)
        live.resident = True
        covered = 0
        if checkpoint is not None:
            loaded.rebuild_reason = await self._restore(live, checkpoint, loaded)
            covered = 0 if loaded.rebuild_reason else checkpoint.revision
        rest = [span for entry in live.entries[covered:] for span in entry.spans]
        if rest:
            await self.engine.feed(live.key, await self._feeds(owner, rest))

    async def _restore(self, live: LiveSession, checkpoint: CheckpointRecord, loaded: Loaded) -> str:
        """Fills the slot from the checkpoint's pages; the reason when it could not."""
        if checkpoint.compatibility_key != self.engine.info.compatibility_key:
            return "KEY_MISMATCH"
        started = time.monotonic()
        try:
            manifest = manifests.decode(await self.store.catalog.manifest(checkpoint))
            state = await self._fetch(live.record.owner, manifest)
        except BlobMissing:
            return "PAGE_MISSING"
        except Damage:
            return "PAGE_CORRUPT"
        loaded.store_seconds += time.monotonic() - started
        spans = live.spans_at(checkpoint.revision)
        try:
            loaded.state_seconds += await self.engine.load(live.key, spans, state)
        except EngineRefused:
            return "STATE_REFUSED"
        live.pages = manifest.pages
        loaded.restored_tokens = manifest.cells
        loaded.media_reused = len({span.digest for span in spans if isinstance(span, MediaSpan)})
        loaded.raw_bytes = sum(ref.raw_bytes for ref in manifest.refs)
        loaded.stored_bytes = sum(ref.stored_bytes for ref in manifest.refs)
        return ""

    async def _fetch(self, owner: str, manifest: Manifest) -> KvState:
        bounds = [page.cells * self.engine.info.cell_bytes + _PAGE_HEADER for page in manifest.pages]
        bounds += [_MAX_LOGITS] * (manifest.logits is not None)
        contents = await asyncio.gather(
            *(
                self.store.get_page(owner, ref, max_raw_bytes=bound)
                for ref, bound in zip(manifest.refs, bounds, strict=True)
            )
        )
        pages = [
            KvPage(np.frombuffer(content, np.uint8), page.cells)
            for page, content in zip(manifest.pages, contents, strict=False)
        ]
        logits = np.frombuffer(contents[-1], "<f4") if manifest.logits else None
        return KvState(pages, logits, 0.0)

    async def _feeds(self, owner: str, spans: Sequence[Span]) -> list[Feed]:
        """The spans with their pictures' files. Raises CHECKPOINT_CORRUPT when one is lost."""
        digests = {span.digest for span in spans if isinstance(span, MediaSpan)}
        try:
            media = {digest: await self.store.get_media(owner, digest) for digest in digests}
        except Damage as error:
            raise HoldfastError(
                Reason.CHECKPOINT_CORRUPT,
                "a picture of the session is damaged in the store and its KV state cannot be used either; "
                "restore the data directory from a backup",
            ) from error
        return [Feed(span, media[span.digest] if isinstance(span, MediaSpan) else b"") for span in spans]
