"""--store-bytes: exact totals, room made in the right order, STORE_FULL as an answer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.store.blobs import BlobStore
from holdfast_server.store.budget import BudgetedBlobs, OverBudget
from holdfast_server.store.check import check_integrity
from holdfast_server.store.pages import HEADER_BYTES, PageRef
from holdfast_server.store.store import Store
from tests.store.fakes import MemoryBlobs
from tests.store.helpers import append, checkpoint, digest, refused, session

PAGE = 1_000 - HEADER_BYTES  # random content, so that a page's file has 1,000 bytes


def lying(blobs: BlobStore) -> int:
    return sum(blobs.size(name) for name in blobs.names())


# The running total


def test_the_total_follows_every_put_and_delete(blobs: BlobStore) -> None:
    blobs.put(digest(1), b"12345")
    budgeted = BudgetedBlobs(blobs, 12)
    assert budgeted.used == 5
    assert budgeted.put(digest(2), b"123")
    assert not budgeted.put(digest(2), b"123")
    assert budgeted.used == lying(blobs) == 8
    with refused(Reason.STORE_FULL):
        budgeted.put(digest(3), b"12345")
    assert list(blobs.names()).count(digest(3)) == 0
    assert budgeted.delete(digest(1))
    assert not budgeted.delete(digest(1))
    assert budgeted.used == lying(blobs) == 3
    assert budgeted.put(digest(3), b"123456789")
    assert budgeted.used == 12


def test_a_blob_that_lay_there_damaged_counts_once(blobs: BlobStore) -> None:
    blobs.put(digest(1), b"rotten, and longer")
    budgeted = BudgetedBlobs(blobs, 20)
    assert budgeted.put(digest(1), b"sound")
    assert budgeted.used == lying(blobs) == 5


class Failing(MemoryBlobs):
    """Fails once it has written, or before."""

    written = False

    def put(self, name: str, data: bytes) -> bool:
        if self.written:
            super().put(name, data)
        raise HoldfastError(Reason.INTERNAL, "failed")


@pytest.mark.parametrize("written", [False, True])
def test_a_failed_put_counts_what_it_left(written: bool) -> None:
    blobs = Failing()
    blobs.written = written
    budgeted = BudgetedBlobs(blobs, 100)
    with refused(Reason.INTERNAL):
        budgeted.put(digest(1), b"12345")
    assert budgeted.used == lying(blobs) == (5 if written else 0)


def test_many_threads_keep_the_total_exact_and_the_bound(blobs: BlobStore) -> None:
    budgeted = BudgetedBlobs(blobs, 60)

    def churn(seed: int) -> None:
        for step in range(40):
            name = digest((seed * 7 + step * 3) % 9)
            try:
                budgeted.put(name, b"x" * 10)
            except OverBudget:
                budgeted.delete(name)
            assert budgeted.used <= 60

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
    assert budgeted.used == lying(blobs)


# Making room


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with room for ten pages."""
    opened = await Store.open(tmp_path / "data", max_bytes=10_000)
    yield opened
    assert await check_integrity(opened) == []
    await opened.close()


async def keep(store: Store, name: str, *, automatic: bool = False, pinned: bool = False) -> PageRef:
    """A checkpoint of one new page."""
    content = os.urandom(PAGE)

    async def write() -> PageRef:
        async with store.writing():
            page = await store.put_page("ann", content)
            record = replace(checkpoint(name), automatic=automatic, pinned=pinned, page_count=1)
            await store.catalog.create_checkpoint(record, manifest=b"", pages=[page.ref.digest])
            return page.ref

    return await store.with_room(write)


async def names(store: Store) -> list[str]:
    return [record.checkpoint_id for record in await store.catalog.list_checkpoints("ann")]


async def test_a_full_store_refuses_and_keeps_what_it_has(small: Store) -> None:
    refs = [await keep(small, f"n{number}") for number in range(10)]
    with refused(Reason.STORE_FULL) as caught:
        await keep(small, "one-too-many")
    assert "--store-bytes" in caught.value.message
    for ref in refs:
        assert len(await small.get_page("ann", ref, max_raw_bytes=2_000)) == PAGE
    await small.catalog.create_session(session())
    assert (await append(small.catalog)).revision == 1  # journals are not blobs
    await small.collect()


async def test_garbage_goes_before_any_checkpoint(small: Store) -> None:
    for number in range(10):
        await keep(small, f"a{number}", automatic=True)
    await small.catalog.delete_checkpoint("ann", "a5")
    await keep(small, "new")
    assert await names(small) == [f"a{number}" for number in range(10) if number != 5] + ["new"]


async def test_automatic_checkpoints_make_room_and_no_others(small: Store) -> None:
    await keep(small, "named")
    await keep(small, "pinned", automatic=True, pinned=True)
    for number in range(8):
        await keep(small, f"a{number}", automatic=True)
    await keep(small, "new")
    assert await names(small) == ["named", "new", "pinned"]
    assert isinstance(small.blobs, BudgetedBlobs)
    assert small.blobs.used == 3_000


async def test_room_is_made_down_to_the_low_water_mark(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "data", max_bytes=40_000)
    for number in range(40):
        await keep(store, f"a{number:02}", automatic=True)
    await keep(store, "new")
    assert await names(store) == [f"a{number:02}" for number in range(16, 40)] + ["new"]
    await store.close()


async def test_what_can_never_fit_costs_nobody_a_checkpoint(small: Store) -> None:
    await keep(small, "a", automatic=True)

    async def write() -> None:
        async with small.writing():
            await small.put_media("ann", bytes(10_001))

    with refused(Reason.STORE_FULL):
        await small.with_room(write)
    assert await names(small) == ["a"]


async def test_a_store_that_is_over_its_budget_opens_and_reads(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "data")
    ref = await keep(store, "a")
    await store.close()
    smaller = await Store.open(tmp_path / "data", max_bytes=10)
    assert len(await smaller.get_page("ann", ref, max_raw_bytes=2_000)) == PAGE
    with refused(Reason.STORE_FULL):
        await keep(smaller, "b")
    assert await names(smaller) == ["a"]
    await smaller.close()
