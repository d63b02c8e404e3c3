"""Checkpoints: taken, restored, rolled back to, listed, deleted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from holdfast_server.engine.api import KvState
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions import manifest as manifests
from holdfast_server.sessions import prefix
from holdfast_server.sessions.live import LiveSession, Loaded
from holdfast_server.sessions.manager import Sessions, new_id
from holdfast_server.sessions.manifest import Manifest, ManifestPage
from holdfast_server.sessions.session import SessionView, Usage, check_id, check_labels, check_revision
from holdfast_server.store.catalog import CheckpointRecord, SessionRecord
from holdfast_server.store.pages import PageRef


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored session. `rebuild_reason` is empty when its pages could be used."""

    session: SessionView
    rebuild_reason: str
    usage: Usage


class Checkpoints:
    """Everything about checkpoints. Event loop only.

    Every method raises HoldfastError, with the reasons that the service names.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._engine = sessions.engine
        self._store = sessions.store
        self._catalog = sessions.store.catalog

    async def take(
        self,
        owner: str,
        session_id: str,
        checkpoint_id: str,
        expected_revision: int | None,
        labels: Mapping[str, str],
    ) -> tuple[CheckpointRecord, Usage]:
        """Freezes a session; writes only pages that its stored ones do not hold yet."""
        started = time.monotonic()
        checkpoint_id = checkpoint_id or new_id("c")
        check_id("session_id", session_id)
        check_id("checkpoint_id", checkpoint_id)
        check_labels(labels)
        async with self._sessions.registry.use(owner, session_id) as live, live.writing():
            check_revision(live.record, expected_revision)
            async with self._sessions.residency.hold(live, live.tokens) as loaded:
                usage = await self._settle(live, loaded)
                async with self._store.writing():
                    manifest = await self._write_pages(live, usage)
                    record = await self._commit(live, checkpoint_id, labels, manifest)
                    live.pages = manifest.pages
        usage.total_seconds = time.monotonic() - started
        return record, usage

    async def _settle(self, live: LiveSession, loaded: Loaded) -> Usage:
        """Waits until the whole session is in the cache; what that and loading it cost."""
        try:
            await self._engine.settle(live.key)
            work = await self._engine.take_work(live.key)
        except RuntimeError:
            await self._sessions.residency.drop(live)
            raise
        return Usage(
            prompt_tokens=live.tokens,
            prefilled_tokens=work.prefilled_tokens,
            restored_tokens=loaded.restored_tokens,
            media_encoded=work.media_encoded,
            media_reused=loaded.media_reused,
            raw_bytes=loaded.raw_bytes,
            stored_bytes=loaded.stored_bytes,
            queue_seconds=loaded.queue_seconds,
            encode_seconds=work.encode_seconds,
            prefill_seconds=work.prefill_seconds,
            state_seconds=loaded.state_seconds,
            store_seconds=loaded.store_seconds,
        )

    async def _write_pages(self, live: LiveSession, usage: Usage) -> Manifest:
        owner = live.record.owner
        if not await self._are_stored(live.pages):
            live.pages = ()  # the checkpoint they came from was deleted
        covered = sum(page.cells for page in live.pages)
        state = await self._engine.read(live.key, live.spans, covered)
        started = time.monotonic()
        contents = [page.content.data for page in state.pages]
        contents += [state.logits.view(np.uint8).data] if state.logits is not None else []
        put = await asyncio.gather(*(self._store.put_page(owner, content) for content in contents))
        usage.state_seconds += state.seconds
        usage.store_seconds += time.monotonic() - started
        usage.raw_bytes = sum(content.nbytes for content in contents)
        usage.pages_written = sum(page.new for page in put)
        usage.stored_bytes = sum(page.ref.stored_bytes for page in put if page.new)
        return _manifest(live, state, [page.ref for page in put])

    async def _are_stored(self, pages: Sequence[ManifestPage]) -> bool:
        """Whether something refers to every page, so that none can be collected."""
        digests = [page.ref.digest for page in pages]
        slices = [digests[start : start + 500] for start in range(0, len(digests), 500)]
        found = [await self._catalog.referenced(some) for some in slices]
        return sum(map(len, found)) == len(set(digests))

    async def _commit(
        self, live: LiveSession, checkpoint_id: str, labels: Mapping[str, str], manifest: Manifest
    ) -> CheckpointRecord:
        session, refs = live.record, manifest.refs
        record = CheckpointRecord(
            owner=session.owner,
            checkpoint_id=checkpoint_id,
            session_id=session.session_id,
            head=session.head,
            revision=session.revision,
            token_count=session.token_count,
            position=session.position,
            labels=dict(labels),
            model=session.model,
            compatibility_key=self._engine.info.compatibility_key,
            page_count=len(refs),
            raw_bytes=sum(ref.raw_bytes for ref in refs),
            stored_bytes=sum(ref.stored_bytes for ref in refs),
            created=time.time_ns(),
            settings=session.settings,
        )
        spans, ends = live.spans, list(accumulate(page.cells for page in manifest.pages))
        return await self._catalog.create_checkpoint(
            record,
            manifest=manifests.encode(manifest),
            pages=[ref.digest for ref in refs],
            prefixes=await self._store.prefix_digests(session.owner, prefix.parts(spans, ends)),
        )

    async def restore(self, owner: str, checkpoint_id: str, session_id: str) -> Restored:
        """Makes a new session of a checkpoint."""
        started = time.monotonic()
        session_id = session_id or new_id("s")
        check_id("checkpoint_id", checkpoint_id)
        check_id("new_session_id", session_id)
        checkpoint = await self._catalog.get_checkpoint(owner, checkpoint_id)
        now = time.time_ns()
        record = SessionRecord(
            owner=owner,
            session_id=session_id,
            head=checkpoint.head,
            revision=checkpoint.revision,
            token_count=checkpoint.token_count,
            position=checkpoint.position,
            settings=checkpoint.settings,
            labels={},
            model=checkpoint.model,
            created=now,
            updated=now,
        )
        await self._catalog.create_session(record, limit=self._sessions.limits.sessions)
        try:
            async with self._sessions.registry.use(owner, session_id) as live, live.writing():
                return await self._bring_back(live, checkpoint, started)
        except BaseException:
            await self._sessions.delete(owner, session_id)
            raise

    async def roll_back(self, owner: str, checkpoint_id: str, session_id: str) -> Restored:
        """Takes a session back to a checkpoint of its own; what came after is dropped."""
        started = time.monotonic()
        check_id("checkpoint_id", checkpoint_id)
        check_id("rollback_session_id", session_id)
        checkpoint = await self._catalog.get_checkpoint(owner, checkpoint_id)
        async with self._sessions.registry.use(owner, session_id) as live, live.writing():
            await self._check_own(live, checkpoint)
            self._check_context(checkpoint)
            record = await self._catalog.reset(
                owner,
                session_id,
                head=checkpoint.head,
                token_count=checkpoint.token_count,
                position=checkpoint.position,
                updated=time.time_ns(),
            )
            await self._sessions.residency.drop(live)
            live.shrink(record)
            restored = await self._bring_back(live, checkpoint, started)
        self._sessions.spawn(self._store.collect())
        return restored

    async def _check_own(self, live: LiveSession, checkpoint: CheckpointRecord) -> None:
        """The checkpoint must lie on the session's own path: its head is one of the session's entries."""
        entries = await self._catalog.journal(live.record.owner, live.record.head)
        own = {entry.entry_id for entry in entries} | {None}
        if checkpoint.head not in own:
            raise HoldfastError(
                Reason.NOT_OWN_CHECKPOINT,
                "the checkpoint is not in this session's past; restore it into a new session instead",
            )

    def _check_context(self, checkpoint: CheckpointRecord) -> None:
        if checkpoint.token_count > self._engine.info.cells:
            raise HoldfastError(
                Reason.CONTEXT_WINDOW_EXCEEDED,
                f"the checkpoint holds {checkpoint.token_count} tokens, but the context window has "
                f"{self._engine.info.cells}; start the server with a larger one (-c)",
            )

    async def _bring_back(self, live: LiveSession, checkpoint: CheckpointRecord, started: float) -> Restored:
        self._check_context(checkpoint)
        async with self._sessions.residency.hold(live, live.tokens, checkpoint=checkpoint) as loaded:
            usage = await self._settle(live, loaded)
            usage.total_seconds = time.monotonic() - started
            return Restored(live.view, loaded.rebuild_reason, usage)

    async def get(self, owner: str, checkpoint_id: str) -> CheckpointRecord:
        """Reads a checkpoint's description."""
        check_id("checkpoint_id", checkpoint_id)
        return await self._catalog.get_checkpoint(owner, checkpoint_id)

    async def list(self, owner: str, session_id: str, after_id: str, limit: int) -> list[CheckpointRecord]:
        """At most `limit` checkpoints after `after_id`; of one session, or of all when it is empty."""
        if session_id:
            check_id("session_id", session_id)
        return await self._catalog.list_checkpoints(
            owner, session_id=session_id, after_id=after_id, limit=limit
        )

    async def delete(self, owner: str, checkpoint_id: str) -> None:
        """Deletes a checkpoint, whether or not it was there."""
        check_id("checkpoint_id", checkpoint_id)
        await self._catalog.delete_checkpoint(owner, checkpoint_id)
        self._sessions.spawn(self._store.collect())


def _manifest(live: LiveSession, state: KvState, refs: list[PageRef]) -> Manifest:
    """The session's stored pages and the new ones behind them."""
    new = [ManifestPage(page.cells, ref) for page, ref in zip(state.pages, refs, strict=False)]
    return Manifest((*live.pages, *new), refs[-1] if state.logits is not None else None)
