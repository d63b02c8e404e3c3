"""A session in memory: its journal decoded, its pages, who is writing to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import Span, Work
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions import journal
from holdfast_server.sessions.chat import Transcript
from holdfast_server.sessions.journal import Entry
from holdfast_server.sessions.manifest import ManifestPage
from holdfast_server.sessions.session import SessionView, Settings, State, Usage
from holdfast_server.store.catalog import Entry as CatalogEntry
from holdfast_server.store.catalog import SessionRecord


@dataclass(slots=True)
class Loaded:
    """How a session came into its slot since a reply last told; all zero when it was there already."""

    shared_tokens: int = 0
    restored_tokens: int = 0
    rebuild_reason: str = ""
    """Why a checkpoint's pages could not be used, empty when they could or there were none."""
    media_reused: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    queue_seconds: float = 0.0
    state_seconds: float = 0.0
    store_seconds: float = 0.0

    def cost(self, work: Work, prompt_tokens: int) -> Usage:
        """What loading, and the engine's work since, add to a call that had `prompt_tokens` before it."""
        return Usage(
            prompt_tokens=prompt_tokens,
            prefilled_tokens=work.prefilled_tokens,
            restored_tokens=self.restored_tokens,
            media_encoded=work.media_encoded,
            media_reused=self.media_reused,
            raw_bytes=self.raw_bytes,
            stored_bytes=self.stored_bytes,
            queue_seconds=self.queue_seconds,
            encode_seconds=work.encode_seconds,
            prefill_seconds=work.prefill_seconds,
            state_seconds=self.state_seconds,
            store_seconds=self.store_seconds,
        )


class LiveSession:
    """One session while it is resident or in use. Event loop only."""

    def __init__(self, record: SessionRecord, entries: Sequence[CatalogEntry]) -> None:
        self.record = record
        self.settings: Settings = journal.decode_settings(record.settings)
        self.key = f"{record.owner}/{record.session_id}"
        self.users = 0
        self.resident = False
        self.loads = 0
        """How often the slot was given up: tells one stay in the context from the next."""
        self.prefilling = 0
        self.pages: tuple[ManifestPage, ...] = ()
        """Stored pages that hold the first cells of the resident state."""
        self.unreported: Loaded | None = None
        """How it was loaded in the background, for the next reply to tell."""
        self.generating = False
        self.deleted = False
        self._lock = asyncio.Lock()
        self.loading = asyncio.Lock()
        self.heads = [entry.entry_id for entry in entries]
        """The catalog's ids of the entries."""
        self._set_journal([journal.decode(entry.payload) for entry in entries])

    def _set_journal(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.transcript = Transcript()
        for entry in entries:
            self.transcript.add(entry)
        self.spans: tuple[Span, ...] = journal.join([span for entry in entries for span in entry.spans])

    def grow(self, record: SessionRecord, entry: Entry) -> None:
        """Takes over an entry that the catalog has committed."""
        if record.head is None:
            raise ValueError("a session that has grown has a head")
        self.record = record
        self.heads.append(record.head)
        self.entries.append(entry)
        self.transcript.add(entry)
        self.spans = journal.join([*self.spans, *entry.spans])

    def move(self, record: SessionRecord, entries: list[Entry], heads: list[int]) -> None:
        """Takes over another head that the catalog has committed, with the entries up to it."""
        self.record = record
        self.heads = list(heads)
        self._set_journal(list(entries))

    def spans_at(self, revision: int) -> tuple[Span, ...]:
        """The spans of the first `revision` entries."""
        return journal.join([span for entry in self.entries[:revision] for span in entry.spans])

    def made_by(self, request_id: str) -> int | None:
        """The index of the entry that a call with this request id made."""
        found = (i for i, entry in enumerate(self.entries) if request_id and entry.request_id == request_id)
        return next(found, None)

    @property
    def tokens(self) -> int:
        """Tokens in the session, the held-back one included."""
        return cells_of.count_cells(self.spans)

    @property
    def view(self) -> SessionView:
        """The session as clients see it."""
        busy = State.PREFILLING if self.prefilling else State.IDLE
        return SessionView(
            self.record, self.settings, State.GENERATING if self.generating else busy, self.resident
        )

    def view_at(self, revision: int) -> SessionView:
        """The session as it was at a revision, doing and being where it is now."""
        spans = self.spans_at(revision)
        cells, positions = cells_of.count_cells(spans), cells_of.count_positions(spans)
        record = replace(self.record, revision=revision, token_count=cells, position=positions)
        return replace(self.view, record=record)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Keeps other writers out; short writers wait for each other.

        Raises SESSION_BUSY while a generation runs, SESSION_NOT_FOUND once it is deleted.
        """
        self._check_idle()
        async with self._lock:
            self._check_idle()
            self._check_there()
            yield

    @asynccontextmanager
    async def generation(self) -> AsyncIterator[None]:
        """Keeps every other writer out, and refuses those that come. Raises SESSION_BUSY."""
        self._check_idle()
        self.generating = True
        try:
            async with self._lock:
                self._check_there()
                yield
        finally:
            self.generating = False

    def _check_there(self) -> None:
        """A session of the same name that was made since is another one."""
        if self.deleted:
            raise HoldfastError(Reason.SESSION_NOT_FOUND, "the session was deleted meanwhile")

    def _check_idle(self) -> None:
        if self.generating:
            raise HoldfastError(
                Reason.SESSION_BUSY, "the session is generating; wait for its Finish or cancel that call"
            )
