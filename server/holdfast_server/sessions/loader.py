"""How a session's KV state comes into its fresh slot.

In this order: the cells of a resident session that begins alike, shared; stored
pages, verified; and what neither covers is prefilled from the journal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import (
    Engine,
    EngineRefused,
    Feed,
    KvPage,
    KvState,
    MediaSpan,
    SlotClosed,
    Span,
)
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions import manifest as manifests
from holdfast_server.sessions import prefix
from holdfast_server.sessions.live import LiveSession, Loaded
from holdfast_server.sessions.manifest import Manifest, ManifestPage
from holdfast_server.store.catalog import CheckpointRecord
from holdfast_server.store.damage import BlobMissing, Damage
from holdfast_server.store.store import Store

_PAGE_HEADER = 64
_MAX_LOGITS = 16 * 2**20
"""Bytes: rows of four million tokens."""


@dataclass(frozen=True, slots=True)
class Donor:
    """A resident session that begins as another does."""

    live: LiveSession
    cells: int


def find_donor(live: LiveSession, residents: Iterable[LiveSession]) -> Donor | None:
    """The resident session of this owner with the most cells in common with `live`."""
    wanted = shareable(live.spans)
    others = (r for r in residents if r is not live and r.resident and r.record.owner == live.record.owner)
    donors = (Donor(other, cells_of.common_cells(wanted, other.spans)) for other in others)
    return max((d for d in donors if d.cells), key=lambda donor: donor.cells, default=None)


def shareable(spans: Sequence[Span]) -> list[Span]:
    """What may come from elsewhere without logits: all but the last token, or the last picture."""
    kept = cells_of.decoded(spans)
    return kept if cells_of.held_token(spans) is not None else kept[:-1]


class Loader:
    """Fills fresh slots. Event loop only."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine = engine
        self._store = store

    async def load(
        self, live: LiveSession, checkpoint: CheckpointRecord | None, donor: Donor | None, loaded: Loaded
    ) -> None:
        """Opens the slot and fills it as far as nothing has to be computed; the rest is queued.

        With a `checkpoint`, from that one alone. Raises CHECKPOINT_CORRUPT when
        the journal's own media are lost.
        """
        await self._engine.open(live.key)
        if checkpoint is not None:
            manifest, loaded.rebuild_reason = await self._manifest(checkpoint)
            kept = cells_of.decoded(live.spans_at(checkpoint.revision))
            covered = await self._restore(live, kept, manifest, loaded)
        else:
            covered = await self._find(live, donor, loaded)
        await self._feed(live, covered)

    async def _find(self, live: LiveSession, donor: Donor | None, loaded: Loaded) -> int:
        """Takes what a resident session has, or else what is stored; how many cells that was."""
        if donor is not None and await self._share(live, donor, loaded):
            return loaded.shared_tokens
        wanted = shareable(live.spans)
        stops = prefix.stops([entry.spans for entry in live.entries], wanted)
        record = live.record
        digests = await self._store.prefix_digests(record.owner, prefix.parts(wanted, stops))
        key = self._engine.info.compatibility_key
        match = await self._store.catalog.find_prefix(record.owner, digests, compatibility_key=key)
        if match is None:
            return 0
        manifest, _ = await self._manifest(match.checkpoint)
        if manifest is not None:
            manifest = Manifest(manifest.pages[: match.pages])
        stored = cells_of.before(wanted, stops[match.index])
        return await self._restore(live, stored, manifest, loaded)

    async def _share(self, live: LiveSession, donor: Donor, loaded: Loaded) -> bool:
        """Shares the donor's cells, once it has computed them; False when it lost them meanwhile."""
        try:
            await self._engine.settle(donor.live.key)
            shared = await self._engine.share(donor.live.key, live.key, donor.cells)
        except (SlotClosed, RuntimeError):
            return False
        live.pages = within(donor.live.pages, shared)
        loaded.shared_tokens = shared
        loaded.media_reused = len(_digests(cells_of.before(live.spans, shared)))
        return shared > 0

    async def _manifest(self, checkpoint: CheckpointRecord) -> tuple[Manifest | None, str]:
        """The checkpoint's manifest, or why there is none to use."""
        if checkpoint.compatibility_key != self._engine.info.compatibility_key:
            return None, "KEY_MISMATCH"
        try:
            return manifests.decode(await self._store.catalog.manifest(checkpoint)), ""
        except Damage:
            return None, "PAGE_CORRUPT"

    async def _restore(
        self, live: LiveSession, spans: Sequence[Span], manifest: Manifest | None, loaded: Loaded
    ) -> int:
        """Fills the slot with pages that hold `spans`; their cells, or 0 when it could not."""
        if manifest is None:
            return 0
        if cells_of.count_cells(live.spans) == manifest.cells and spans and manifest.logits is None:
            loaded.rebuild_reason = "STATE_REFUSED"  # nothing would be left to generate from
            return 0
        started = time.monotonic()
        try:
            state = await self._fetch(live.record.owner, manifest)
            loaded.store_seconds += time.monotonic() - started
            loaded.state_seconds += await self._engine.load(live.key, spans, state)
        except BlobMissing:
            loaded.rebuild_reason = "PAGE_MISSING"
            return 0
        except Damage:
            loaded.rebuild_reason = "PAGE_CORRUPT"
            return 0
        except EngineRefused:
            loaded.rebuild_reason = "STATE_REFUSED"
            return 0
        live.pages = manifest.pages
        loaded.restored_tokens = manifest.cells
        loaded.media_reused = len(_digests(spans))
        loaded.raw_bytes = sum(ref.raw_bytes for ref in manifest.refs)
        loaded.stored_bytes = sum(ref.stored_bytes for ref in manifest.refs)
        return cells_of.count_cells(spans)

    async def _fetch(self, owner: str, manifest: Manifest) -> KvState:
        bounds = [page.cells * self._engine.info.cell_bytes + _PAGE_HEADER for page in manifest.pages]
        bounds += [_MAX_LOGITS] * (manifest.logits is not None)
        contents = await asyncio.gather(
            *(
                self._store.get_page(owner, ref, max_raw_bytes=bound)
                for ref, bound in zip(manifest.refs, bounds, strict=True)
            )
        )
        pages = [
            KvPage(np.frombuffer(content, np.uint8), page.cells)
            for page, content in zip(manifest.pages, contents, strict=False)
        ]
        logits = np.frombuffer(contents[-1], "<f4") if manifest.logits else None
        return KvState(pages, logits, 0.0)

    async def _feed(self, live: LiveSession, covered: int) -> None:
        """Queues what is not covered, with the pictures' files; from then on appends feed the slot.

        An append may come while files are read, so the last look at the journal,
        the mark that the session is resident and the feed stand together.
        """
        media: dict[str, bytes] = {}
        while missing := _digests(rest := cells_of.after(live.spans, covered)) - media.keys():
            for digest in missing:
                media[digest] = await self._media(live.record.owner, digest)
        live.resident = True
        if rest:
            feeds = [Feed(span, media[span.digest] if isinstance(span, MediaSpan) else b"") for span in rest]
            await self._engine.feed(live.key, feeds)

    async def _media(self, owner: str, digest: str) -> bytes:
        try:
            return await self._store.get_media(owner, digest)
        except Damage as error:
            raise HoldfastError(
                Reason.CHECKPOINT_CORRUPT,
                "a picture of the session is damaged in the store and its KV state cannot be used either; "
                "restore the data directory from a backup",
            ) from error


def within(pages: Sequence[ManifestPage], cells: int) -> tuple[ManifestPage, ...]:
    """The first pages, as far as they end within `cells` cells."""
    ends = accumulate(page.cells for page in pages)
    return tuple(page for page, end in zip(pages, ends, strict=True) if end <= cells)


def _digests(spans: Sequence[Span]) -> set[str]:
    return {span.digest for span in spans if isinstance(span, MediaSpan)}
