"""A whole data directory: pages, media, collection against writers, start-up."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast_server.errors import HoldfastError, Reason, StartupError
from holdfast_server.store.damage import BlobMissing, MediaCorrupt, PageCorrupt
from holdfast_server.store.store import Store, StoredPage
from tests.store.fakes import MemoryBlobs, MemoryCatalog
from tests.store.helpers import append, checkpoint, refused, session

LARGE = 1 << 20


async def put(store: Store, content: bytes, name: str) -> StoredPage:
    """A page, and a checkpoint that refers to it."""
    async with store.writing():
        page = await store.put_page("ann", content)
        await store.catalog.create_checkpoint(checkpoint(name), manifest=b"", pages=[page.ref.digest])
    return page


async def others_run() -> None:
    """Let other tasks and threads get as far as they can."""
    for _ in range(50):
        await asyncio.to_thread(lambda: None)


def path_of(folder: Path, digest: str) -> Path:
    return folder / "data" / "blobs" / digest[:2] / digest


# Pages and media


async def test_page_round_trip_and_deduplication(store: Store) -> None:
    async with store.writing():
        first = await store.put_page("ann", memoryview(b"rows" * 1_000))
        again = await store.put_page("ann", b"rows" * 1_000)
        foreign = await store.put_page("bob", b"rows" * 1_000)
    assert (first.new, again.new, foreign.new) == (True, False, True)
    assert first.ref == again.ref
    assert first.ref.digest != foreign.ref.digest
    for verify in (False, True):
        content = await store.get_page("ann", first.ref, max_raw_bytes=LARGE, verify_digest=verify)
        assert content == b"rows" * 1_000


async def test_a_damaged_page_is_found_and_repaired_by_the_next_put(store: Store, tmp_path: Path) -> None:
    page = await put(store, os.urandom(500), "a")
    path = path_of(tmp_path, page.ref.digest)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole[:100] + bytes(10) + whole[110:], b""):
        path.write_bytes(damaged)
        with pytest.raises(PageCorrupt):
            await store.get_page("ann", page.ref, max_raw_bytes=LARGE)
    async with store.writing():
        content = whole[40:]
        assert (await store.put_page("ann", content)).new
    assert await store.get_page("ann", page.ref, max_raw_bytes=LARGE) == content


async def test_a_page_larger_than_allowed_is_not_even_read(store: Store, tmp_path: Path) -> None:
    page = await put(store, b"x" * 1_000, "a")
    with pytest.raises(PageCorrupt):
        await store.get_page("ann", page.ref, max_raw_bytes=999)
    path = path_of(tmp_path, page.ref.digest)
    with path.open("wb") as file:
        file.truncate(LARGE + 1_000)
    with pytest.raises(PageCorrupt, match="larger"):
        await store.get_page("ann", page.ref, max_raw_bytes=LARGE)


async def test_another_owners_page_fails_the_digest(store: Store) -> None:
    page = await put(store, b"x" * 1_000, "a")
    with pytest.raises(PageCorrupt):
        await store.get_page("bob", page.ref, max_raw_bytes=LARGE, verify_digest=True)


async def test_missing_pages_and_media(store: Store) -> None:
    page = await put(store, b"x", "a")
    absent = replace(page.ref, digest="0" * 64)
    with pytest.raises(BlobMissing):
        await store.get_page("ann", absent, max_raw_bytes=LARGE)
    with pytest.raises(BlobMissing):
        await store.get_media("ann", "0" * 64)


async def test_media_round_trip_and_damage(store: Store, tmp_path: Path) -> None:
    async with store.writing():
        digest = await store.put_media("ann", b"picture")
        assert await store.put_media("ann", b"picture") == digest
    assert path_of(tmp_path, digest).read_bytes() == b"picture"
    assert await store.get_media("ann", digest) == b"picture"
    with pytest.raises(MediaCorrupt):
        await store.get_media("bob", digest)
    path_of(tmp_path, digest).write_bytes(b"picturE")
    with pytest.raises(MediaCorrupt):
        await store.get_media("ann", digest)


async def test_puts_outside_writing_are_a_mistake(store: Store) -> None:
    with pytest.raises(RuntimeError, match="writing"):
        await store.put_page("ann", b"x")
    with pytest.raises(RuntimeError, match="writing"):
        await store.put_media("ann", b"x")


# Collection


async def test_collect_deletes_what_lost_its_last_reference(store: Store) -> None:
    await store.catalog.create_session(session())
    async with store.writing():
        picture = await store.put_media("ann", b"picture")
        await append(store.catalog, media=[picture])
    page = await put(store, b"page", "a")
    shared = await put(store, b"page", "b")
    assert shared.ref == page.ref
    assert await store.collect() == 0
    await store.catalog.delete_checkpoint("ann", "a")
    assert await store.collect() == 0
    await store.catalog.delete_checkpoint("ann", "b")
    await store.catalog.delete_session("ann", "s")
    assert await store.collect() == 2
    assert list(store.blobs.names()) == []


async def test_orphans_of_a_crash_go_with_the_first_collection(tmp_path: Path) -> None:
    first = await Store.open(tmp_path / "data")
    kept = await put(first, b"kept", "a")
    async with first.writing():
        await first.put_page("ann", b"orphan: the process ends before the checkpoint")
    await put(first, b"forgotten", "b")
    await first.catalog.delete_checkpoint("ann", "b")
    await first.catalog.unreferenced()  # the process ends before the blobs are deleted
    await first.close()
    second = await Store.open(tmp_path / "data")
    assert await second.collect() == 2
    assert list(second.blobs.names()) == [kept.ref.digest]
    await second.close()


async def test_a_failed_deletion_is_made_up_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.collect()
    await put(store, b"page", "a")
    await store.catalog.delete_checkpoint("ann", "a")

    def failing(name: str) -> bool:
        raise HoldfastError(Reason.INTERNAL, "failed")

    with monkeypatch.context() as patch:
        patch.setattr(store.blobs, "delete", failing)
        with refused(Reason.INTERNAL):
            await store.collect()
    assert await store.collect() == 1


async def test_collection_spares_what_a_writer_is_about_to_refer_to(store: Store) -> None:
    """The page is unreferenced, the writer's put finds it there, then a collection begins."""
    page = await put(store, b"page", "a")
    await store.collect()
    await store.catalog.delete_checkpoint("ann", "a")
    async with store.writing():
        assert not (await store.put_page("ann", b"page")).new
        collection = asyncio.create_task(store.collect())
        await others_run()
        await store.catalog.create_checkpoint(checkpoint("b"), manifest=b"", pages=[page.ref.digest])
    assert await collection == 0
    assert await store.get_page("ann", page.ref, max_raw_bytes=LARGE) == b"page"


async def test_writers_and_collections_in_any_order_lose_nothing(store: Store) -> None:
    """Many writers over few pages, each deleting the checkpoint before its own."""

    async def write(worker: int) -> None:
        for turn in range(10):
            await put(store, b"page %d" % (turn % 3), f"w{worker}-{turn}")
            if turn:
                await store.catalog.delete_checkpoint("ann", f"w{worker}-{turn - 1}")
            collecting.append(asyncio.create_task(store.collect()))

    collecting: list[asyncio.Task[int]] = []
    await asyncio.gather(*[write(worker) for worker in range(4)])
    await asyncio.gather(*collecting)
    await store.collect()
    async with store.writing():
        page = await store.put_page("ann", b"page 0")
    assert not page.new
    assert list(store.blobs.names()) == [page.ref.digest]


async def test_a_cancelled_collection_still_keeps_writers_out() -> None:
    """Were the gate left at once, the put would find a file that is then deleted."""
    blobs, deleting, go_on = MemoryBlobs(), threading.Event(), threading.Event()
    delete = blobs.delete

    def slow(name: str) -> bool:
        deleting.set()
        go_on.wait()
        return delete(name)

    store = Store(MemoryCatalog(), blobs)
    page = await put(store, b"page", "a")
    await store.catalog.delete_checkpoint("ann", "a")
    blobs.delete = slow  # type: ignore[method-assign]
    collection = asyncio.create_task(store.collect())
    await asyncio.to_thread(deleting.wait)
    collection.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collection
    writer = asyncio.create_task(put(store, b"page", "b"))
    await others_run()
    go_on.set()
    assert (await writer).new
    assert await store.get_page("ann", page.ref, max_raw_bytes=LARGE) == b"page"
    await store.close()


async def test_a_call_during_a_collection_is_not_lost() -> None:
    blobs, deleting, go_on = MemoryBlobs(), threading.Event(), threading.Event()
    delete = blobs.delete

    def slow(name: str) -> bool:
        deleting.set()
        go_on.wait()
        return delete(name)

    store = Store(MemoryCatalog(), blobs)
    for name in ("a", "b"):
        await put(store, name.encode(), name)
    await store.collect()
    await store.catalog.delete_checkpoint("ann", "a")
    blobs.delete = slow  # type: ignore[method-assign]
    first = asyncio.create_task(store.collect())
    await asyncio.to_thread(deleting.wait)
    await store.catalog.delete_checkpoint("ann", "b")
    second = asyncio.create_task(store.collect())
    await others_run()
    go_on.set()
    assert await first == await second == 2
    assert blobs.held == {}
    await store.close()


# Start-up


async def test_a_directory_serves_one_server_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first = await Store.open(folder)
    with pytest.raises(StartupError, match="in use by another holdfast server"):
        await Store.open(folder)
    epoch = first.catalog.epoch
    await first.close()
    await first.close()
    second = await Store.open(folder)
    assert second.catalog.epoch == epoch + 1
    await second.close()


async def test_the_directory_is_the_owners_alone(store: Store, tmp_path: Path) -> None:
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (tmp_path / "data").iterdir() if "sqlite3-" not in path.name) == [
        "blobs",
        "catalog.sqlite3",
        "lock",
    ]


@pytest.mark.parametrize("broken", [".", "lock", "blobs", "catalog.sqlite3"])
async def test_each_start_up_problem_is_one_clear_line(tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "data"
    if broken == ".":
        folder.write_bytes(b"a file")
    else:
        folder.mkdir()
        if broken == "blobs":
            (folder / broken).write_bytes(b"a file")
        else:
            (folder / broken).mkdir()
    with pytest.raises(StartupError) as caught:
        await Store.open(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


async def test_a_failed_start_gives_the_directory_up(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "catalog.sqlite3").write_bytes(b"junk" * 1_000)
    with pytest.raises(StartupError, match="cannot open the catalog"):
        await Store.open(folder)
    (folder / "catalog.sqlite3").unlink()
    await (await Store.open(folder)).close()


async def test_a_full_or_read_only_disk_is_found_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StartupError, match="No space left"):
        await Store.open(tmp_path / "data")
