"""An uploaded file, looked through from beginning to end before any of it is stored.

Nothing in it is believed: sizes are bounded before they are allocated, digests
verified, numbers compared with each other, pictures laid out again, and pages
compared with the journal, cell by cell, by the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import Engine, EngineRefused, KvPage, KvState, MediaSpan, Span, TokenSpan
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions import description, journal
from holdfast_server.sessions.archive import Kind, Reader, Record, refused, too_large
from holdfast_server.sessions.description import Description
from holdfast_server.sessions.journal import Entry, ImagePart, Outcome, TextPart
from holdfast_server.sessions.limits import Limits
from holdfast_server.store.damage import JournalCorrupt

_PAGE_HEADER = 64
_MAX_LOGITS = 16 * 2**20
_HEAD_BYTES = 256 * 2**10
_JOURNAL_BYTES = 16 * 2**20
_BYTES_PER_TOKEN = 128
"""Of journal JSON, beside _JOURNAL_BYTES."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a verified body lies in the file."""

    offset: int
    size: int


@dataclass(slots=True)
class Inspected:
    """A file that may be stored: where its pictures and pages lie, and its journal."""

    about: Description
    usable: bool
    """Whether the pages, if there are any, are ones that this server can load."""
    media: dict[str, Place] = field(default_factory=dict)
    """By plain digest."""
    entries: list[Entry] = field(default_factory=list)
    """Their pictures are named by plain digest."""
    pages: list[Place] = field(default_factory=list)
    logits: Place | None = None


class Inspector:
    """Looks through one file. Event loop; reading, hashing and parsing happen on other threads."""

    def __init__(self, engine: Engine, limits: Limits, reader: Reader) -> None:
        self._engine = engine
        self._info = engine.info
        self._limits = limits
        self._reader = reader
        self._layouts: dict[str, list[MediaSpan]] = {}
        self._digests: list[str] = []

    async def begin(self) -> Description:
        """What the file says it is, and whether this server could take it.

        Raises IMPORT_REFUSED, PAYLOAD_TOO_LARGE, MODEL_MISMATCH, CONTEXT_WINDOW_EXCEEDED.
        """
        await asyncio.to_thread(self._reader.start)
        self._found = await self._head()
        return self._found.about

    async def finish(self) -> Inspected:
        """The rest of the file, verified. Raises as `begin`, and what makes a picture unfit."""
        found = self._found
        for _ in range(found.about.media):
            await self._picture(found)
        await self._journal(found)
        await self._pages(found)
        await self._logits(found)
        await self._end(found)
        return found

    async def _next(self, kind: Kind, bound: int) -> Record:
        return await asyncio.to_thread(self._reader.next, kind, bound)

    async def _head(self) -> Inspected:
        cells = self._info.cells
        head = await self._next(Kind.HEAD, _HEAD_BYTES + 16 * cells)
        about = await asyncio.to_thread(description.decode, head.body)
        if about.settings.token_key != self._info.token_key:
            raise HoldfastError(
                Reason.MODEL_MISMATCH,
                f"the checkpoint was made with the model {about.record.model!r}, whose tokens are not this "
                "model's; import it on a server with that model and its projector",
            )
        if about.record.token_count > cells:
            raise HoldfastError(
                Reason.CONTEXT_WINDOW_EXCEEDED,
                f"the checkpoint holds {about.record.token_count} tokens, but the context window has "
                f"{cells}; start the server with a larger one (-c)",
            )
        if sum(about.page_cells) > about.record.token_count:
            raise refused("its pages declare more cells than it has tokens")
        if about.media > about.record.token_count:
            raise refused("it declares more pictures than tokens")
        same = about.record.compatibility_key == self._info.compatibility_key
        return Inspected(about, usable=same)

    async def _picture(self, found: Inspected) -> None:
        record = await self._next(Kind.MEDIA, self._limits.media_bytes)
        if record.digest in found.media:
            raise refused("a picture comes twice")
        spans = await self._engine.lay_out(record.body, record.digest)
        self._layouts[record.digest] = [span for span in spans if isinstance(span, MediaSpan)]
        found.media[record.digest] = Place(record.offset, len(record.body))

    # The journal

    async def _journal(self, found: Inspected) -> None:
        left = _JOURNAL_BYTES + _BYTES_PER_TOKEN * self._info.cells
        for _ in range(found.about.entries):
            record = await self._next(Kind.ENTRY, left)
            left -= len(record.body)
            found.entries.append(await asyncio.to_thread(self._entry, record.body))
        await asyncio.to_thread(self._check_journal, found)
        await self._check_state(_spans(found), KvState([], None, 0.0), 0)

    def _entry(self, payload: bytes) -> Entry:
        """An entry of exactly the form that this server writes."""
        try:
            entry = journal.decode(payload)
            if journal.encode(entry) != payload or not _is_well_typed(entry):
                raise refused("a journal entry is not in its canonical form")
        # Beside what `decode` foresees: values of absurd types and sizes, and deep nesting.
        except (
            JournalCorrupt,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
            OverflowError,
            RecursionError,
        ) as error:
            raise refused("a journal entry cannot be read") from error
        if len(entry.spans) > self._info.cells or any(name not in self._layouts for name in entry.media):
            raise refused("a journal entry refers to a picture that is not in the file")
        shown = [p.digest for m in entry.messages for p in m.parts if isinstance(p, ImagePart)]
        expected = [span for name in shown for span in self._layouts[name]]
        if [span for span in entry.spans if isinstance(span, MediaSpan)] != expected:
            raise refused("a picture does not take the cells that the journal says")
        return entry

    def _check_journal(self, found: Inspected) -> None:
        spans, about = _spans(found), found.about.record
        if cells_of.count_cells(spans) != about.token_count:
            raise refused("its journal does not add up to its token count")
        if cells_of.count_positions(spans) != about.position:
            raise refused("its journal does not add up to its position")
        if {name for entry in found.entries for name in entry.media} != found.media.keys():
            raise refused("it brings pictures that its journal does not show")

    # The state

    async def _pages(self, found: Inspected) -> None:
        about, spans = found.about, _spans(found)
        decoded = cells_of.decoded(spans)
        if about.page_cells and sum(about.page_cells) != cells_of.count_cells(decoded):
            raise refused("its pages do not hold the cells of its journal")
        largest = max((span.cells for spans in self._layouts.values() for span in spans), default=0)
        if max(about.page_cells, default=0) > max(cells_of.PAGE_CELLS, largest):
            raise refused("a page declares more cells than any page has")
        if about.logits != bool(about.page_cells and cells_of.held_token(spans) is None):
            raise refused("it has logits that it should not have, or lacks them")
        found.usable = found.usable and bool(about.page_cells or not decoded)
        first = 0
        for cells in about.page_cells:
            await self._page(found, spans, cells, first)
            first += cells

    async def _page(self, found: Inspected, spans: Sequence[Span], cells: int, first: int) -> None:
        if not found.usable:
            self._digests.append(await asyncio.to_thread(self._reader.skip, Kind.PAGE))
            return
        record = await self._next(Kind.PAGE, cells * self._info.cell_bytes + _PAGE_HEADER)
        page = KvPage(np.frombuffer(record.body, np.uint8), cells)
        await self._check_state(spans, KvState([page], None, 0.0), first)
        self._digests.append(record.digest)
        found.pages.append(Place(record.offset, len(record.body)))

    async def _logits(self, found: Inspected) -> None:
        if not found.about.logits:
            return
        if not found.usable:
            self._digests.append(await asyncio.to_thread(self._reader.skip, Kind.LOGITS))
            return
        record = await self._next(Kind.LOGITS, _MAX_LOGITS)
        if len(record.body) % 4:
            raise refused("its logits are no row of numbers")
        await self._check_state((), KvState([], np.frombuffer(record.body, "<f4"), 0.0), 0)
        self._digests.append(record.digest)
        found.logits = Place(record.offset, len(record.body))

    async def _check_state(self, spans: Sequence[Span], state: KvState, first: int) -> None:
        try:
            await self._engine.check(spans, state, first)
        except EngineRefused as error:
            raise refused(str(error)) from error

    async def _end(self, found: Inspected) -> None:
        logits = self._digests.pop() if found.about.logits else None
        pages = list(zip(found.about.page_cells, self._digests, strict=True))
        expected = description.encode_manifest(pages, logits)
        record = await self._next(Kind.MANIFEST, _HEAD_BYTES + 256 * len(pages))
        if record.body != expected:
            raise refused("its manifest does not list the pages that came")
        await asyncio.to_thread(self._reader.finish)


def check_size(size: int, engine: Engine, limits: Limits) -> None:
    """Raises PAYLOAD_TOO_LARGE for more bytes than any file that could be imported here has."""
    info = engine.info
    most = limits.archive_bytes + info.cells * (info.cell_bytes + _PAGE_HEADER)
    if size > most:
        raise too_large(f"it has more than {most} bytes")


def _spans(found: Inspected) -> tuple[Span, ...]:
    return journal.join([span for entry in found.entries for span in entry.spans])


def _is_sound(outcome: Outcome | None, entry: Entry) -> bool:
    """Whether the outcome can be that of this entry's last span."""
    if outcome is None:
        return True
    last = entry.spans[-1] if entry.spans else None
    return (
        isinstance(outcome.matched_stop, str)
        and type(outcome.tokens) is int
        and isinstance(last, TokenSpan)
        and 0 <= outcome.tokens <= last.cells
    )


def _is_well_typed(entry: Entry) -> bool:
    """Whether the values have the types that the entry's fields promise: JSON may hold any."""
    texts = [entry.end] + [p.text for m in entry.messages for p in m.parts if isinstance(p, TextPart)]
    counts = [
        number
        for span in entry.spans
        if isinstance(span, MediaSpan)
        for number in (span.index, span.cells, span.positions)
    ]
    names = [p.digest for m in entry.messages for p in m.parts if isinstance(p, ImagePart)]
    names += [span.digest for span in entry.spans if isinstance(span, MediaSpan)]
    rows = [span.tokens for span in entry.spans if isinstance(span, TokenSpan)]
    if entry.request_id != "" or not _is_sound(entry.outcome, entry):
        return False
    return (
        all(isinstance(text, str) for text in (*texts, *names))
        and all(type(number) is int for number in counts)
        and all(tokens.ndim == 1 for tokens in rows)
    )
