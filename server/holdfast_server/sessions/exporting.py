"""A checkpoint as a file, streamed frame by frame."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace

from holdfast_server.errors import HoldfastError, Reason, invalid
from holdfast_server.sessions import description, journal
from holdfast_server.sessions import manifest as manifests
from holdfast_server.sessions.archive import Bytes, Kind, Writer, digest
from holdfast_server.sessions.manifest import Manifest
from holdfast_server.sessions.session import check_id
from holdfast_server.store.catalog import CheckpointRecord
from holdfast_server.store.damage import Damage
from holdfast_server.store.store import Store

FRAME_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of the file. The last tells the whole file's size and SHA-256."""

    offset: int
    data: bytes
    total_bytes: int = 0
    digest: bytes = b""


async def export(store: Store, owner: str, checkpoint_id: str, offset: int) -> AsyncGenerator[Frame, None]:
    """The file from `offset` on, in frames of at most 1 MiB.

    A checkpoint never changes, so its file is the same every time. What comes
    before `offset` is read and hashed again, only not sent.
    Raises CHECKPOINT_NOT_FOUND, CHECKPOINT_CORRUPT, INVALID_FIELD.
    """
    check_id("checkpoint_id", checkpoint_id)
    if offset < 0:
        raise invalid("offset", "must not be negative")
    record = await store.catalog.get_checkpoint(owner, checkpoint_id)
    cutter = _Cutter(offset)
    try:
        async for piece in _pieces(store, record):
            for frame in await asyncio.to_thread(cutter.cut, piece):
                yield frame
    except Damage as error:
        # It may have been deleted meanwhile, which is another thing than damage.
        await store.catalog.get_checkpoint(owner, checkpoint_id)
        raise HoldfastError(
            Reason.CHECKPOINT_CORRUPT,
            "a part of the checkpoint is missing or damaged in the store; restore it, which recomputes its "
            "pages, and export a new checkpoint of that session",
        ) from error
    if cutter.seen < offset:
        raise invalid("offset", f"is behind the end of the file, which has {cutter.seen} bytes")
    yield cutter.last()


async def _pieces(store: Store, record: CheckpointRecord) -> AsyncIterator[Sequence[Bytes]]:
    """The file, record by record."""
    catalog, owner = store.catalog, record.owner
    manifest = manifests.decode(await catalog.manifest(record))
    entries = [journal.decode(entry.payload) for entry in await catalog.journal(owner, record.head)]
    media = list(dict.fromkeys(name for entry in entries for name in entry.media))
    cells = [page.cells for page in manifest.pages]
    writer = Writer()
    head = description.encode(record, len(media), cells, manifest.logits is not None)
    yield [writer.start(), *writer.record(Kind.HEAD, head)]
    names: dict[str, str] = {}
    for name in media:
        picture = await store.get_media(owner, name)
        names[name] = await asyncio.to_thread(digest, picture)
        yield await asyncio.to_thread(writer.record, Kind.MEDIA, picture)
    for entry in entries:
        # Request ids are between one server and its clients.
        portable = replace(journal.renamed(entry, names), request_id="")
        yield writer.record(Kind.ENTRY, journal.encode(portable))
    digests: list[str] = []
    async for kind, content in _contents(store, owner, manifest):
        digests.append(await asyncio.to_thread(digest, content))
        yield await asyncio.to_thread(writer.record, kind, content)
    logits = digests.pop() if manifest.logits is not None else None
    body = description.encode_manifest(list(zip(cells, digests, strict=True)), logits)
    yield [*writer.record(Kind.MANIFEST, body), *writer.finish()]


async def _contents(store: Store, owner: str, manifest: Manifest) -> AsyncIterator[tuple[Kind, Bytes]]:
    """What the pages and the logits hold, verified against the owner's own digests."""
    kinds = [Kind.PAGE] * len(manifest.pages) + [Kind.LOGITS] * (manifest.logits is not None)
    for kind, ref in zip(kinds, manifest.refs, strict=True):
        content = await store.get_page(owner, ref, max_raw_bytes=ref.raw_bytes, verify_digest=True)
        yield kind, content


class _Cutter:
    """Cuts the file into frames and leaves out what comes before an offset. Any thread, one at a time."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._rest = b""
        self._hasher = hashlib.sha256()
        self.seen = 0

    def cut(self, pieces: Sequence[Bytes]) -> list[Frame]:
        """The frames that are full now."""
        return [frame for piece in pieces for frame in self._cut(memoryview(piece).cast("B"))]

    def _cut(self, piece: memoryview) -> Iterator[Frame]:
        self._hasher.update(piece)
        skipped = min(max(self._offset - self.seen, 0), piece.nbytes)
        self.seen += piece.nbytes
        piece = piece[skipped:]
        while len(self._rest) + piece.nbytes >= FRAME_BYTES:
            taken = FRAME_BYTES - len(self._rest)
            data, self._rest = self._rest + bytes(piece[:taken]), b""
            yield Frame(self.seen - piece.nbytes - (len(data) - taken), data)
            piece = piece[taken:]
        self._rest += bytes(piece)

    def last(self) -> Frame:
        """What is left, with the size and digest of the whole."""
        return Frame(self.seen - len(self._rest), self._rest, self.seen, self._hasher.digest())
