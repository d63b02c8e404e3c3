"""Checkpoints: taken, restored, rolled back to, listed, deleted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions import journal
from holdfast_server.sessions.journal import Entry
from holdfast_server.sessions.live import LiveSession, Loaded
from holdfast_server.sessions.manager import Sessions
from holdfast_server.sessions.pager import Kept, PagesGone
from holdfast_server.sessions.session import (
    SessionView,
    Usage,
    check_id,
    check_labels,
    check_request_id,
    check_revision,
    check_ttl,
    new_id,
)
from holdfast_server.sessions.translation import Translator
from holdfast_server.sessions.uninterrupted import uninterrupted
from holdfast_server.store.catalog import CheckpointRecord, SessionRecord


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored session. `rebuild_reason` is empty when its pages could be used."""

    session: SessionView
    rebuild_reason: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class CheckpointSpec:
    """What a client wants of a checkpoint; empty id: the server chooses."""

    checkpoint_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ttl: int | None = None
    """Nanoseconds after its creation."""
    pinned: bool = False
    request_id: str = ""


class Checkpoints:
    """Everything about checkpoints. Event loop only.

    Every method raises HoldfastError, with the reasons that the service names.
    """

    def __init__(self, sessions: Sessions, *, strict_restore: bool = False) -> None:
        """With `strict_restore`, a restore that would have to recompute is refused."""
        self._strict = strict_restore
        self._translator = Translator(sessions.engine, sessions.store, sessions.composer)
        self._sessions = sessions
        self._engine = sessions.engine
        self._store = sessions.store
        self._catalog = sessions.store.catalog
        self._pager = sessions.pager

    async def take(
        self, owner: str, session_id: str, spec: CheckpointSpec, expected_revision: int | None = None
    ) -> tuple[CheckpointRecord, Usage]:
        """Freezes a session; writes only pages that its stored ones do not hold yet."""
        started = time.monotonic()
        check_request_id(spec.request_id)
        spec = replace(spec, checkpoint_id=spec.checkpoint_id or new_id("c", spec.request_id))
        check_id("session_id", session_id)
        check_id("checkpoint_id", spec.checkpoint_id)
        check_labels(spec.labels)
        check_ttl(spec.ttl)
        async with self._sessions.registry.use(owner, session_id) as live, live.writing():
            made = await self._made_by(owner, spec)
            if made is not None:
                return made, Usage(prompt_tokens=made.token_count)
            check_revision(live.record, expected_revision)
            async with self._sessions.residency.hold(live, live.tokens) as loaded:
                usage = await self._settle(live, loaded)
                kept = await self._keep(live, spec)
            usage.raw_bytes, usage.stored_bytes = kept.raw_bytes, kept.stored_bytes
            usage.pages_written = kept.pages_written
            usage.store_seconds += kept.store_seconds
            usage.state_seconds += kept.state_seconds
        usage.total_seconds = time.monotonic() - started
        return kept.record, usage

    async def _made_by(self, owner: str, spec: CheckpointSpec) -> CheckpointRecord | None:
        """The checkpoint that the first of two equal requests made."""
        try:
            made = await self._catalog.get_checkpoint(owner, spec.checkpoint_id)
        except HoldfastError as error:
            if error.reason is not Reason.CHECKPOINT_NOT_FOUND:
                raise
            return None
        request_id = journal.decode_settings(made.settings).request_id
        return made if spec.request_id and request_id == spec.request_id else None

    async def _settle(self, live: LiveSession, loaded: Loaded) -> Usage:
        """Waits until the whole session is in the cache; what that and loading it cost."""
        try:
            await self._engine.settle(live.key)
            work = await self._engine.take_work(live.key)
        except RuntimeError:
            await self._sessions.residency.drop(live)
            raise
        return loaded.cost(work, live.tokens)

    async def _keep(self, live: LiveSession, spec: CheckpointSpec) -> Kept:
        """Freezes and writes; the whole state where stored pages it builds on are gone."""
        record = self._pager.describe(live.record, spec.checkpoint_id)
        record = replace(
            record,
            labels=dict(spec.labels),
            pinned=spec.pinned,
            expires=record.created + spec.ttl if spec.ttl else None,
            settings=journal.encode_settings(replace(live.settings, request_id=spec.request_id)),
        )
        try:
            kept = await self._pager.keep(await self._pager.freeze(live), record)
        except PagesGone:
            live.pages = ()
            kept = await self._pager.keep(await self._pager.freeze(live), record)
        live.pages = kept.manifest.pages
        return kept

    async def restore(
        self, owner: str, checkpoint_id: str, session_id: str, request_id: str = ""
    ) -> Restored:
        """Makes a new session of a checkpoint."""
        started = time.monotonic()
        check_request_id(request_id)
        session_id = session_id or new_id("s", request_id)
        check_id("checkpoint_id", checkpoint_id)
        check_id("new_session_id", session_id)
        checkpoint = await self._catalog.get_checkpoint(owner, checkpoint_id)
        foreign = self._is_foreign(checkpoint)
        if foreign and not self._strict:
            checkpoint = await self._translator.translate(checkpoint)
        record = _session_of(checkpoint, session_id, request_id)
        new = await self._sessions.make(record) is record
        try:
            async with self._sessions.registry.use(owner, session_id) as live, live.writing():
                restored = await self._bring_back(live, checkpoint, started)
                return replace(restored, rebuild_reason="MODEL_CHANGED") if foreign else restored
        except BaseException:
            if new:
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
            before, entries, heads = live.record, live.entries, live.heads
            revision = checkpoint.revision
            await uninterrupted(self._move(live, checkpoint, entries[:revision], heads[:revision]))
            try:
                restored = await self._bring_back(live, checkpoint, started)
            except HoldfastError:
                await uninterrupted(self._move(live, before, entries, heads))
                raise
        self._sessions.spawn(self._store.collect())
        return restored

    async def _move(
        self,
        live: LiveSession,
        to: CheckpointRecord | SessionRecord,
        entries: list[Entry],
        heads: list[int],
    ) -> None:
        """Sets the session's head, in the catalog and in memory; its slot is given up."""
        record = await self._catalog.reset(
            live.record.owner,
            live.record.session_id,
            head=to.head,
            token_count=to.token_count,
            position=to.position,
            updated=time.time_ns(),
        )
        await self._sessions.residency.drop(live)
        live.move(record, entries, heads)

    async def _check_own(self, live: LiveSession, checkpoint: CheckpointRecord) -> None:
        """The checkpoint must lie on the session's own path: its head is one of the session's entries."""
        entries = await self._catalog.journal(live.record.owner, live.record.head)
        own = {entry.entry_id for entry in entries} | {None}
        if checkpoint.head not in own:
            raise HoldfastError(
                Reason.NOT_OWN_CHECKPOINT,
                "the checkpoint is not in this session's past; restore it into a new session instead",
            )

    def _is_foreign(self, checkpoint: CheckpointRecord) -> bool:
        """Whether another model gave the checkpoint's token ids their meaning."""
        return journal.decode_settings(checkpoint.settings).token_key != self._engine.info.token_key

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
            if self._strict and loaded.rebuild_reason:
                await self._sessions.residency.drop(live)
                raise HoldfastError(
                    Reason.REBUILD_REFUSED,
                    "the checkpoint's pages cannot be used, and this server restores nothing else "
                    "(--strict-restore)",
                    metadata={"rebuild_reason": loaded.rebuild_reason},
                )
            usage = await self._settle(live, loaded)
            usage.total_seconds = time.monotonic() - started
            return Restored(live.view, loaded.rebuild_reason, usage)

    async def get(self, owner: str, checkpoint_id: str) -> CheckpointRecord:
        """Reads a checkpoint's description."""
        check_id("checkpoint_id", checkpoint_id)
        return await self._catalog.get_checkpoint(owner, checkpoint_id)

    async def list(
        self, owner: str, session_id: str, after_id: str, limit: int, *, automatic: bool
    ) -> list[CheckpointRecord]:
        """At most `limit` checkpoints after `after_id`; of one session, or of all when it is empty.

        With `automatic`, those that the server took by itself too.
        """
        if session_id:
            check_id("session_id", session_id)
        return await self._catalog.list_checkpoints(
            owner, session_id=session_id, after_id=after_id, limit=limit, automatic=automatic
        )

    async def delete(self, owner: str, checkpoint_id: str) -> None:
        """Deletes a checkpoint, whether or not it was there."""
        check_id("checkpoint_id", checkpoint_id)
        await self._catalog.delete_checkpoint(owner, checkpoint_id)
        self._sessions.spawn(self._store.collect())


def _session_of(checkpoint: CheckpointRecord, session_id: str, request_id: str) -> SessionRecord:
    """The record of a session that begins as the checkpoint froze another."""
    settings = replace(journal.decode_settings(checkpoint.settings), request_id=request_id)
    now = time.time_ns()
    return SessionRecord(
        owner=checkpoint.owner,
        session_id=session_id,
        head=checkpoint.head,
        revision=checkpoint.revision,
        token_count=checkpoint.token_count,
        position=checkpoint.position,
        settings=journal.encode_settings(settings),
        labels={},
        model=checkpoint.model,
        created=now,
        updated=now,
    )
