"""A file becomes a checkpoint: received, inspected, stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from holdfast_server.errors import HoldfastError, Reason, invalid
from holdfast_server.sessions import journal
from holdfast_server.sessions import manifest as manifests
from holdfast_server.sessions.archive import Reader, too_large
from holdfast_server.sessions.exporting import FRAME_BYTES
from holdfast_server.sessions.inspection import Inspected, Inspector, Place, check_size
from holdfast_server.sessions.manager import Sessions
from holdfast_server.sessions.manifest import Manifest, ManifestPage
from holdfast_server.sessions.session import check_id, new_id
from holdfast_server.sessions.uploads import Upload, Uploads
from holdfast_server.store.catalog import CheckpointRecord
from holdfast_server.store.spool import Spool
from holdfast_server.store.store import Store

MAX_IMPORTING = 2
"""Files that are inspected and stored at a time; the others wait."""


@dataclass(frozen=True, slots=True)
class Part:
    """A frame of the file on its way in; the two ids count in the first."""

    upload_id: str
    offset: int
    data: bytes
    complete: bool
    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of it; no checkpoint while the file is not complete."""

    received_bytes: int
    checkpoint: CheckpointRecord | None = None
    pages_imported: bool = False


class Imports:
    """Takes files in. Event loop only.

    Raises HoldfastError, with the reasons that the service names. What fails
    leaves nothing in the catalog, and in the store at most what a collection removes.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._engine = sessions.engine
        self._store = sessions.store
        self._limits = sessions.limits
        self._uploads = Uploads(sessions.store)
        self._importing = asyncio.Semaphore(MAX_IMPORTING)

    async def receive(self, owner: str, parts: AsyncIterator[Part]) -> Imported:
        """Takes one call's frames; with the last of the file, imports it."""
        first = await anext(parts, None)
        if first is None:
            raise invalid("data", "must be sent; the call had no message")
        if first.upload_id:
            check_id("upload_id", first.upload_id)
        if first.checkpoint_id:
            check_id("checkpoint_id", first.checkpoint_id)
            await self._check_free(owner, first.checkpoint_id)
        key = f"{owner}/{first.upload_id or new_id('u')}"
        async with self._uploads.use(key) as (upload, turn):
            try:
                complete = await self._collect(upload, turn, first, parts)
            finally:
                if not first.upload_id:
                    self._uploads.drop(key)
            if not complete:
                return Imported(upload.spool.size)
            await upload.finish(turn)
            self._uploads.drop(key)
            async with self._importing:
                return await self._import(owner, upload.spool, first.checkpoint_id)

    async def _collect(self, upload: Upload, turn: int, first: Part, parts: AsyncIterator[Part]) -> bool:
        """Writes the frames down; whether they complete the file."""
        part: Part | None = first
        while part is not None:
            await self._write(upload, turn, part)
            if part.complete:
                return True
            part = await anext(parts, None)
        return False

    async def _write(self, upload: Upload, turn: int, part: Part) -> None:
        upload.check(turn)
        if len(part.data) > FRAME_BYTES:
            raise too_large(f"a frame has {len(part.data)} bytes; at most {FRAME_BYTES} are taken")
        if not part.data:
            return  # it asks how much is there, or says that this is all
        if not 0 <= part.offset <= upload.spool.size:
            raise HoldfastError(
                Reason.INVALID_FIELD,
                f"offset must be from 0 to {upload.spool.size}, which is what the server holds; go on there",
                field="offset",
                metadata={"received_bytes": str(upload.spool.size)},
            )
        check_size(part.offset + len(part.data), self._engine, self._limits)
        await upload.write(turn, part.offset, part.data)

    async def _import(self, owner: str, spool: Spool, checkpoint_id: str) -> Imported:
        inspector = Inspector(self._engine, self._limits, Reader(spool.read, spool.size))
        about = await inspector.begin()
        checkpoint_id = checkpoint_id or about.record.checkpoint_id
        await self._check_free(owner, checkpoint_id)
        found = await inspector.finish()
        record = replace(
            about.record,
            owner=owner,
            checkpoint_id=checkpoint_id,
            settings=journal.encode_settings(about.settings),
        )
        record = await _Storing(self._store, spool, found).run(record)
        return Imported(spool.size, record, pages_imported=found.usable)

    async def _check_free(self, owner: str, checkpoint_id: str) -> None:
        """An early answer; the catalog's own, at the end, is the one that counts."""
        try:
            await self._store.catalog.get_checkpoint(owner, checkpoint_id)
        except HoldfastError as error:
            if error.reason is Reason.CHECKPOINT_NOT_FOUND:
                return
            raise
        raise HoldfastError(Reason.CHECKPOINT_EXISTS, "a checkpoint of this id exists")


class _Storing:
    """Puts an inspected file into the store, under the owner's own digests."""

    def __init__(self, store: Store, spool: Spool, found: Inspected) -> None:
        self._store = store
        self._spool = spool
        self._found = found

    async def run(self, record: CheckpointRecord) -> CheckpointRecord:
        """All of it, or nothing that the catalog knows of."""
        async with self._store.writing():
            names = {
                plain: await self._store.put_media(record.owner, await self._read(place))
                for plain, place in self._found.media.items()
            }
            entries = [journal.renamed(entry, names) for entry in self._found.entries]
            manifest = await self._put_pages(record.owner)
            refs = manifest.refs
            record = replace(
                record,
                # Without pages there is nothing that another server's key would be the key of.
                compatibility_key=record.compatibility_key if self._found.usable else "",
                page_count=len(refs),
                raw_bytes=sum(ref.raw_bytes for ref in refs),
                stored_bytes=sum(ref.stored_bytes for ref in refs),
            )
            return await self._store.catalog.import_checkpoint(
                record,
                journal=[(journal.encode(entry), entry.media) for entry in entries],
                manifest=manifests.encode(manifest),
                pages=[ref.digest for ref in refs],
            )

    async def _put_pages(self, owner: str) -> Manifest:
        pages = []
        for cells, place in zip(self._found.about.page_cells, self._found.pages, strict=False):
            put = await self._store.put_page(owner, await self._read(place))
            pages.append(ManifestPage(cells, put.ref))
        if self._found.logits is None:
            return Manifest(tuple(pages))
        logits = await self._store.put_page(owner, await self._read(self._found.logits))
        return Manifest(tuple(pages), logits.ref)

    async def _read(self, place: Place) -> bytes:
        return await asyncio.to_thread(self._spool.read, place.offset, place.size)
