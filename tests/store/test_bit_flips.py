"""Bit rot: every flip and truncation of a manifest, thousands of pages and media, all detected."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import Connection, update

from holdfast_server.store import pages, sql_checkpoints
from holdfast_server.store.damage import ManifestCorrupt, MediaCorrupt, PageCorrupt
from holdfast_server.store.digest import keyed_digest
from holdfast_server.store.schema import checkpoints
from holdfast_server.store.sql_catalog import SqlCatalog
from holdfast_server.store.store import Store
from tests.store.fakes import MemoryBlobs, MemoryCatalog
from tests.store.helpers import checkpoint

KEY = bytes(range(32))
MANIFEST = (
    b'{"v":1,"cells":3,"pages":[{"cells":3,"page":{"digest":"%064x","raw_bytes":96}}],"logits":null}' % 7
)


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


async def test_every_flip_and_truncation_of_a_manifest_is_detected(sql: SqlCatalog) -> None:
    record = await sql.create_checkpoint(checkpoint(), manifest=MANIFEST, pages=[])
    damaged = [flipped(MANIFEST, bit) for bit in range(8 * len(MANIFEST))]
    damaged += [MANIFEST[:length] for length in range(len(MANIFEST))] + [MANIFEST + b" "]

    def try_all(connection: Connection) -> int:
        found = 0
        for manifest in damaged:
            connection.execute(update(checkpoints).values(manifest=manifest))
            with pytest.raises(ManifestCorrupt):
                sql_checkpoints.manifest(connection, record)
            found += 1
        connection.execute(update(checkpoints).values(manifest=MANIFEST))
        return found

    assert await sql._database.write(try_all) == 9 * len(MANIFEST) + 1
    assert await sql.manifest(record) == MANIFEST


@pytest.mark.parametrize("compressible", [True, False])
def test_flips_and_truncations_of_pages_are_detected(compressible: bool) -> None:
    chance = random.Random(1)
    content = b"kelp" * 500 if compressible else chance.randbytes(2_000)
    page = pages.encode(content, KEY)
    header = [flipped(page.data, bit) for bit in range(8 * pages.HEADER_BYTES)]
    body = [flipped(page.data, chance.randrange(8 * len(page.data))) for _ in range(4_000)]
    cut = [page.data[:length] for length in range(len(page.data))]
    for damaged in (*header, *body, *cut, page.data + b"\0"):
        with pytest.raises(PageCorrupt):
            pages.decode(damaged, page.ref, max_raw_bytes=1 << 20)
        with pytest.raises(PageCorrupt):
            pages.check(damaged, page.ref.digest, KEY)
    assert pages.decode(page.data, page.ref, max_raw_bytes=1 << 20) == content
    pages.check(page.data, page.ref.digest, KEY)


def test_a_foreign_page_under_the_name_is_detected() -> None:
    ours, other = pages.encode(b"ours" * 50, KEY), pages.encode(b"them" * 50, KEY)
    for check in (
        lambda: pages.decode(other.data, ours.ref, max_raw_bytes=1 << 20),
        lambda: pages.check(other.data, ours.ref.digest, KEY),
        lambda: pages.check(ours.data, ours.ref.digest, bytes(32)),
    ):
        with pytest.raises(PageCorrupt):
            check()


async def test_flips_and_truncations_of_media_are_detected() -> None:
    chance = random.Random(2)
    blobs, catalog = MemoryBlobs(), MemoryCatalog()
    store = Store(catalog, blobs)
    picture = chance.randbytes(3_000)
    async with store.writing():
        digest = await store.put_media("ann", picture)
    assert digest == keyed_digest(await catalog.owner_key("ann"), picture)
    damaged = [flipped(picture, chance.randrange(8 * len(picture))) for _ in range(2_000)]
    damaged += [picture[:length] for length in range(0, len(picture), 7)] + [picture + b"\0"]
    for content in damaged:
        blobs.held[digest] = content
        with pytest.raises(MediaCorrupt):
            await store.get_media("ann", digest)
    blobs.held[digest] = picture
    assert await store.get_media("ann", digest) == picture
    await store.close()
