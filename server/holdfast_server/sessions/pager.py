"""KV state on its way out: frozen in the engine, then written as pages under a manifest.

Freezing is one copy on the engine thread, of what no stored page holds yet;
hashing, compressing, writing and the catalog follow without it, while the
session goes on or its slot serves another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from holdfast_server.engine.api import Engine, KvState, Span
from holdfast_server.sessions import manifest as manifests
from holdfast_server.sessions import prefix
from holdfast_server.sessions.live import LiveSession
from holdfast_server.sessions.manifest import Manifest, ManifestPage
from holdfast_server.store.catalog import CheckpointRecord, SessionRecord
from holdfast_server.store.store import Store, StoredPage


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session's KV state at one revision: pages that are stored, and those that are not yet."""

    session: SessionRecord
    spans: tuple[Span, ...]
    base: tuple[ManifestPage, ...]
    state: KvState
    loads: int
    """Of the live session: another number, and the slot has been given up since."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot that is in the store, and what writing it cost."""

    record: CheckpointRecord
    manifest: Manifest
    pages_written: int
    raw_bytes: int
    stored_bytes: int
    store_seconds: float
    state_seconds: float


class PagesGone(Exception):
    """A page that the snapshot builds on was collected meanwhile; freeze the whole state instead."""


class Pager:
    """Writes snapshots. Event loop only; the work runs on the engine and the store's threads."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine = engine
        self._store = store

    async def freeze(self, live: LiveSession) -> Snapshot:
        """Copies what is not in a page yet. Raises RuntimeError unless the slot is settled."""
        session, spans, base, loads = live.record, live.spans, live.pages, live.loads
        covered = sum(page.cells for page in base)
        return Snapshot(session, spans, base, await self._engine.read(live.key, spans, covered), loads)

    def describe(self, session: SessionRecord, checkpoint_id: str) -> CheckpointRecord:
        """The record of a checkpoint of a session as it is, its pages not counted yet."""
        return CheckpointRecord(
            owner=session.owner,
            checkpoint_id=checkpoint_id,
            session_id=session.session_id,
            head=session.head,
            revision=session.revision,
            token_count=session.token_count,
            position=session.position,
            labels={},
            model=session.model,
            compatibility_key=self._engine.info.compatibility_key,
            page_count=0,
            raw_bytes=0,
            stored_bytes=0,
            created=time.time_ns(),
            settings=session.settings,
        )

    async def keep(self, snapshot: Snapshot, record: CheckpointRecord) -> Kept:
        """Makes the snapshot durable as the checkpoint that `record` describes.

        Raises PagesGone, CHECKPOINT_EXISTS, STORE_FULL, and SESSION_NOT_FOUND
        when the session was deleted meanwhile.
        """
        started = time.monotonic()
        state = snapshot.state
        contents = [page.content.data for page in state.pages]
        contents += [state.logits.view(np.uint8).data] if state.logits is not None else []
        written, manifest, put = await self._store.with_room(lambda: self._write(snapshot, record, contents))
        return Kept(
            record=written,
            manifest=manifest,
            pages_written=sum(page.new for page in put),
            raw_bytes=sum(content.nbytes for content in contents),
            stored_bytes=sum(page.ref.stored_bytes for page in put if page.new),
            store_seconds=time.monotonic() - started,
            state_seconds=state.seconds,
        )

    async def _write(
        self, snapshot: Snapshot, record: CheckpointRecord, contents: Sequence[memoryview]
    ) -> tuple[CheckpointRecord, Manifest, list[StoredPage]]:
        state = snapshot.state
        async with self._store.writing():
            if not await self._are_stored(snapshot.base):
                raise PagesGone
            put = await asyncio.gather(*(self._store.put_page(record.owner, content) for content in contents))
            new = [
                ManifestPage(page.cells, stored.ref) for page, stored in zip(state.pages, put, strict=False)
            ]
            logits = put[-1].ref if state.logits is not None else None
            manifest = Manifest((*snapshot.base, *new), logits)
            return await self._commit(record, manifest, snapshot.spans), manifest, put

    async def _commit(
        self, record: CheckpointRecord, manifest: Manifest, spans: Sequence[Span]
    ) -> CheckpointRecord:
        refs = manifest.refs
        record = replace(
            record,
            page_count=len(refs),
            raw_bytes=sum(ref.raw_bytes for ref in refs),
            stored_bytes=sum(ref.stored_bytes for ref in refs),
        )
        ends = list(accumulate(page.cells for page in manifest.pages))
        return await self._store.catalog.create_checkpoint(
            record,
            manifest=manifests.encode(manifest),
            pages=[ref.digest for ref in refs],
            prefixes=await self._store.prefix_digests(record.owner, prefix.parts(spans, ends)),
        )

    async def _are_stored(self, pages: Sequence[ManifestPage]) -> bool:
        """Whether something refers to every page, so that none can be collected."""
        digests = list({page.ref.digest for page in pages})
        slices = [digests[start : start + 500] for start in range(0, len(digests), 500)]
        found = [await self._store.catalog.referenced(some) for some in slices]
        return sum(map(len, found)) == len(digests)
