"""Sessions: created, read, listed, deleted, appended to."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import Engine, Feed, SlotClosed
from holdfast_server.errors import HoldfastError, Reason, invalid
from holdfast_server.sessions import journal
from holdfast_server.sessions.autosave import Autosave, Mode
from holdfast_server.sessions.composer import Composed, Composer, messages_of, pictures_of
from holdfast_server.sessions.journal import Entry, Kind, Message
from holdfast_server.sessions.limits import Limits
from holdfast_server.sessions.live import LiveSession
from holdfast_server.sessions.pager import Pager
from holdfast_server.sessions.registry import Registry
from holdfast_server.sessions.residency import Residency
from holdfast_server.sessions.session import (
    ChatFormat,
    Chunk,
    Sampling,
    SessionView,
    Settings,
    State,
    Usage,
    check_id,
    check_labels,
    check_request_id,
    check_revision,
    check_sampling,
    check_ttl,
    new_id,
    reused,
)
from holdfast_server.sessions.uninterrupted import uninterrupted
from holdfast_server.store.catalog import SessionRecord
from holdfast_server.store.store import Store

_logger = logging.getLogger("holdfast.sessions")


class Sessions:
    """Everything about sessions but generating and checkpoints. Event loop only.

    Every method raises HoldfastError, with the reasons that the service names.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        limits: Limits,
        *,
        autosave: Mode = Mode.TURN,
        autosave_keep: int = 2,
    ) -> None:
        self.engine = engine
        self.store = store
        self.limits = limits
        self.composer = Composer(engine, limits)
        self.pager = Pager(engine, store)
        trim = store.catalog.trim_automatic
        self.autosave = Autosave(self.pager, self.spawn, trim, mode=autosave, keep=autosave_keep)
        self.residency = Residency(engine, store, self.autosave)
        self.registry = Registry(store.catalog, engine.info.token_key)
        self._tasks: set[asyncio.Task[object]] = set()

    async def create(
        self,
        owner: str,
        session_id: str,
        chat_format: ChatFormat | None,
        sampling: Sampling,
        labels: Mapping[str, str],
        ttl: int | None = None,
        request_id: str = "",
    ) -> SessionView:
        """Creates an empty session; `ttl` is in nanoseconds after its last use."""
        check_request_id(request_id)
        session_id = session_id or new_id("s", request_id)
        check_id("session_id", session_id)
        check_labels(labels)
        check_ttl(ttl)
        check_sampling(sampling, context_tokens=self.engine.info.cells)
        has_template = self.composer.template is not None
        if chat_format is ChatFormat.TEMPLATE and not has_template:
            raise HoldfastError(
                Reason.NO_CHAT_TEMPLATE, "the model has no chat template; create a raw session with it"
            )
        settings = Settings(
            chat_format=chat_format or (ChatFormat.TEMPLATE if has_template else ChatFormat.RAW),
            sampling=sampling.over(Sampling(seed=secrets.randbits(32))),
            token_key=self.engine.info.token_key,
            request_id=request_id,
        )
        now = time.time_ns()
        record = SessionRecord(
            owner=owner,
            session_id=session_id,
            head=None,
            revision=0,
            token_count=0,
            position=0,
            settings=journal.encode_settings(settings),
            labels=dict(labels),
            model=self.engine.info.model_name,
            created=now,
            updated=now,
            ttl=ttl,
            expires=now + ttl if ttl else None,
        )
        return self._view(await self.make(record))

    async def make(self, record: SessionRecord) -> SessionRecord:
        """Adds a session to the catalog; a retried request gets the session that the first one made."""
        owner, request_id = record.owner, journal.decode_settings(record.settings).request_id
        try:
            await self.store.catalog.create_session(record, limit=self.limits.sessions)
        except HoldfastError as error:
            if error.reason is not Reason.SESSION_EXISTS or not request_id:
                raise
            made = await self.store.catalog.get_session(owner, record.session_id)
            if journal.decode_settings(made.settings).request_id != request_id:
                raise
            return made
        return record

    async def fork(
        self,
        owner: str,
        session_id: str,
        new_session_id: str,
        revision: int | None,
        sampling: Sampling,
        labels: Mapping[str, str],
        request_id: str = "",
    ) -> tuple[SessionView, Usage]:
        """Makes a session that begins as another was at a revision; its newest where that is None."""
        started = time.monotonic()
        check_request_id(request_id)
        new_session_id = new_session_id or new_id("s", request_id)
        check_id("session_id", session_id)
        check_id("new_session_id", new_session_id)
        check_labels(labels)
        check_sampling(sampling, context_tokens=self.engine.info.cells)
        async with self.registry.use(owner, session_id) as live:
            await self.make(_branch(live, revision, new_session_id, sampling, labels, request_id))
            async with self.registry.use(owner, new_session_id) as branch:
                if self.residency.fits(branch, live.tokens if not live.resident else 0):
                    self.spawn(self._prefill(self.registry.retain(branch)))
                seconds = time.monotonic() - started
                usage = Usage(prompt_tokens=branch.tokens, store_seconds=seconds, total_seconds=seconds)
                return branch.view, usage

    async def get(self, owner: str, session_id: str) -> SessionView:
        """Reads a session."""
        check_id("session_id", session_id)
        return self._view(await self.store.catalog.get_session(owner, session_id))

    async def list(self, owner: str, after_id: str, limit: int) -> list[SessionView]:
        """At most `limit` sessions with ids after `after_id`, in the order of their ids."""
        records = await self.store.catalog.list_sessions(owner, after_id=after_id, limit=limit)
        return [self._view(record) for record in records]

    def _view(self, record: SessionRecord) -> SessionView:
        live = self.registry.peek(record.owner, record.session_id)
        if live is not None:
            return live.view
        return SessionView(record, journal.decode_settings(record.settings), State.IDLE, resident=False)

    async def delete(self, owner: str, session_id: str) -> None:
        """Deletes a session, whether or not it was there."""
        check_id("session_id", session_id)
        try:
            async with self.registry.use(owner, session_id) as live, live.writing():
                await uninterrupted(self._delete(live))
        except HoldfastError as error:
            if error.reason is Reason.SESSION_BUSY:
                raise
            # Not there, or not readable here and so never in memory: only the name is left to delete.
            await self.store.catalog.delete_session(owner, session_id)
        self.spawn(self.store.collect())

    async def expire(self, owner: str, session_id: str, now: int) -> bool:
        """Deletes a session unless somebody uses it or has used it since; collects nothing."""
        try:
            async with self.registry.use(owner, session_id) as live:
                if live.users > 1 or (live.record.expires or now + 1) > now:
                    return False
                async with live.writing():
                    await uninterrupted(self._delete(live))
                    return True
        except HoldfastError:  # not readable here, and so never in memory
            return await self.store.catalog.delete_session(owner, session_id)

    async def _delete(self, live: LiveSession) -> None:
        await self.store.catalog.delete_session(live.record.owner, live.record.session_id)
        await self.store.catalog.trim_automatic(live.record.owner, live.record.session_id, 0)
        live.deleted = True
        self.registry.forget(live)
        await self.residency.drop(live)

    async def append(
        self,
        owner: str,
        session_id: str,
        chunks: Sequence[Chunk],
        expected_revision: int | None,
        request_id: str = "",
    ) -> tuple[SessionView, Usage]:
        """Journals chunks as one entry, then has them computed in the background."""
        started = time.monotonic()
        check_id("session_id", session_id)
        check_request_id(request_id)
        async with self.registry.use(owner, session_id) as live, live.writing():
            self.composer.check(chunks, live.settings.chat_format)
            pictures = pictures_of(chunks)
            digests = [await self.store.media_digest(owner, picture) for picture in pictures]
            made = live.made_by(request_id)
            if made is not None:
                return _append_again(live, made, messages_of(chunks, digests))
            check_revision(live.record, expected_revision)
            composed = await self.composer.compose(
                live.transcript, live.settings.chat_format, chunks, digests, first=not live.spans
            )
            self._check_context(live, composed)
            entry = Entry(Kind.APPEND, composed.messages, composed.spans, request_id=request_id)
            await uninterrupted(self._accept(live, pictures, entry, composed.feeds))
            usage = Usage(prompt_tokens=cells_of.count_cells(composed.spans))
            usage.store_seconds = usage.total_seconds = time.monotonic() - started
            return live.view, usage

    async def _accept(
        self, live: LiveSession, pictures: Sequence[bytes], entry: Entry, feeds: Sequence[Feed]
    ) -> None:
        """Makes an append durable, then gives it to the slot, which must hold all that the journal does."""
        await self.store.with_room(lambda: self._write(live, pictures, entry))
        await self._start_prefill(live, feeds)

    async def _write(self, live: LiveSession, pictures: Sequence[bytes], entry: Entry) -> None:
        async with self.store.writing():
            for picture in pictures:
                await self.store.put_media(live.record.owner, picture)
            await self.commit(live, entry)

    async def commit(self, live: LiveSession, entry: Entry) -> None:
        """Makes an entry durable and takes it over; not to be cancelled between the two."""
        record = await self.store.catalog.append(
            live.record.owner,
            live.record.session_id,
            expected_revision=live.record.revision,
            payload=journal.encode(entry),
            media=entry.media,
            token_count=live.tokens + cells_of.count_cells(entry.spans),
            position=live.record.position + cells_of.count_positions(entry.spans),
            updated=time.time_ns(),
        )
        live.grow(record, entry)

    def _check_context(self, live: LiveSession, composed: Composed) -> None:
        wanted, most = live.tokens + cells_of.count_cells(composed.spans), self.engine.info.cells
        if wanted > most:
            raise HoldfastError(
                Reason.CONTEXT_WINDOW_EXCEEDED,
                f"the session would hold {wanted} tokens, but the context window has {most}; append less, or "
                "start a new session",
                metadata={"tokens": str(wanted), "context_tokens": str(most)},
            )

    # Background prefill

    async def _start_prefill(self, live: LiveSession, feeds: Sequence[Feed]) -> None:
        if live.resident:
            await self.residency.feed(live, feeds)
        elif not self.residency.fits(live, live.tokens):
            return  # it would evict another: wait until someone generates from it
        self.spawn(self._prefill(self.registry.retain(live)))

    async def _prefill(self, live: LiveSession) -> None:
        """Makes the session resident and waits for it, so that GetSession can tell what it is doing."""
        live.prefilling += 1
        try:
            async with self.residency.hold(live, live.tokens) as loaded:
                live.unreported = loaded
            await self.engine.settle(live.key)
        except SlotClosed:
            pass  # another session needed the slot; the next Generate loads this one again
        except (HoldfastError, RuntimeError) as error:
            # The next call that needs the state meets the same trouble and tells its client.
            _logger.warning("background prefill ended early: %s", error)
        finally:
            live.prefilling -= 1
            self.registry.release(live)

    def spawn(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        """Runs work that no call waits for; `close` waits for it, and what it raises is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("background work failed", exc_info=error)

    @property
    def busy(self) -> bool:
        """Whether anything runs in the background."""
        return bool(self._tasks)

    async def close(self) -> None:
        """Saves what is resident and waits for everything in the background."""
        for live in self.residency.lives():
            self.spawn(self.autosave.save(live))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _branch(
    live: LiveSession,
    revision: int | None,
    session_id: str,
    sampling: Sampling,
    labels: Mapping[str, str],
    request_id: str,
) -> SessionRecord:
    """The record of a session that begins as `live` was at a revision."""
    newest = live.record.revision
    revision = newest if revision is None else revision
    if not 0 <= revision <= newest:
        raise invalid("revision", f"must be from 0 to {newest}, the session's own")
    spans = live.spans_at(revision)
    own = sampling.over(live.settings.sampling)
    settings = replace(live.settings, sampling=own, request_id=request_id)
    now = time.time_ns()
    return replace(
        live.record,
        session_id=session_id,
        head=live.heads[revision - 1] if revision else None,
        revision=revision,
        token_count=cells_of.count_cells(spans),
        position=cells_of.count_positions(spans),
        settings=journal.encode_settings(settings),
        labels=dict(labels),
        created=now,
        updated=now,
        expires=now + live.record.ttl if live.record.ttl else None,
    )


def _append_again(live: LiveSession, made: int, messages: Sequence[Message]) -> tuple[SessionView, Usage]:
    """What the first of two equal requests was told. Raises REQUEST_ID_REUSED when they are not equal."""
    entry = live.entries[made]
    if entry.kind is not Kind.APPEND or entry.messages != tuple(messages):
        raise reused("request")
    return live.view_at(made + 1), Usage(prompt_tokens=cells_of.count_cells(entry.spans))
