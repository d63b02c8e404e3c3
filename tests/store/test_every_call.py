"""Fail call n: each system call of the blob store fails once, in turn, until a run in which none does.

Whatever fails, what was acknowledged is there after reopening, and the store
is consistent.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.errors import HoldfastError, Reason, StartupError
from holdfast_server.store import file_blobs
from holdfast_server.store.check import check_integrity, examine
from holdfast_server.store.file_blobs import FileBlobs
from holdfast_server.store.pages import PageRef
from holdfast_server.store.store import Store
from tests.store.fakes import MemoryCatalog
from tests.store.helpers import append, checkpoint, session

CALLS = ("write", "fsync", "rename", "unlink", "mkdir")
PAGES = [bytes([number]) * 3_000 + os.urandom(400) for number in range(3)]
PICTURE = os.urandom(900)


@dataclass
class Faulty:
    """The `os` that the blob store sees: call number `at` fails, and only that one."""

    at: int
    fault: str
    count: int = 0
    failed: str = ""

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._wrapped(name, real) if name in CALLS else real

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count != self.at:
                # Nobody pulls the plug here: syncing would only take time.
                return None if name == "fsync" else real(*arguments, **options)
            self.failed = name
            if self.fault == "short":
                if name != "write":
                    return real(*arguments, **options)
                return real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise OSError(getattr(errno, self.fault), "failed")

        return call


@dataclass
class Acknowledged:
    """What the store has said is durable."""

    revision: int = 0
    media: str = ""
    checkpoints: dict[str, PageRef] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)


async def scenario(store: Store, known: Acknowledged) -> None:
    """Append with a picture, checkpoint three pages, delete one checkpoint, collect."""
    await store.catalog.create_session(session())
    async with store.writing():
        media = await store.put_media("ann", PICTURE)
        known.revision = (await append(store.catalog, b"one", media=[media])).revision
        known.media = media
    for number, content in enumerate(PAGES):
        async with store.writing():
            page = await store.put_page("ann", content)
            record = replace(checkpoint(f"c{number}"), page_count=1)
            await store.catalog.create_checkpoint(record, manifest=b"m", pages=[page.ref.digest])
            known.checkpoints[f"c{number}"] = page.ref
    await store.catalog.delete_checkpoint("ann", "c1")
    known.deleted.add("c1")
    await store.collect()
    async with store.writing():
        await store.put_page("ann", PAGES[0])  # there already


async def verify(store: Store, known: Acknowledged) -> None:
    """Reopened, everything acknowledged is readable, and after a collection all adds up."""
    if known.revision:
        record = await store.catalog.get_session("ann", "s")
        assert record.revision == known.revision
        assert [entry.payload for entry in await store.catalog.journal("ann", record.head)] == [b"one"]
        assert await store.get_media("ann", known.media) == PICTURE
    for name, ref in known.checkpoints.items():
        if name not in known.deleted:
            await store.catalog.get_checkpoint("ann", name)
            content = await store.get_page("ann", ref, max_raw_bytes=10_000, verify_digest=True)
            assert content == PAGES[int(name[1])]
    assert not (await examine(store, share=1)).problems
    await store.collect()
    assert await check_integrity(store) == []


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "short"])
async def test_no_failing_call_loses_what_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    failed: set[str] = set()
    number = 0
    while True:
        number += 1
        # The catalog's own faults have tests of their own; one in memory survives any.
        catalog, folder = MemoryCatalog(), tmp_path / "blobs"
        store = Store(catalog, FileBlobs(folder), threads=1)
        faulty, known = Faulty(number, fault), Acknowledged()
        with monkeypatch.context() as patch:
            patch.setattr(file_blobs, "os", faulty)
            try:
                await scenario(store, known)
            except HoldfastError as error:
                assert error.reason is (Reason.STORE_FULL if fault == "ENOSPC" else Reason.INTERNAL)
                assert str(tmp_path) not in error.message
                assert faulty.count >= number  # it is this fault's, and not one of another cause
            else:
                # Nothing that fails on the way to durability may go unnoticed.
                assert fault == "short" or faulty.failed in ("", "mkdir")
        await store.close()
        reopened = Store(catalog, FileBlobs(folder), threads=1)
        await verify(reopened, known)
        for name in list(reopened.blobs.names()):
            reopened.blobs.delete(name)
        await reopened.close()
        if faulty.count < number:
            break
        failed.add(faulty.failed)
    assert failed >= {"write", "fsync", "rename", "unlink"}


@pytest.mark.parametrize("name", ["mkdir", "fsync", "unlink"])
async def test_a_folder_that_cannot_be_made_whole_is_a_startup_error_and_then_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "blobs"
    FileBlobs(folder).close()
    (folder / "0a").rmdir()
    (folder / "0b" / ".tmp-1").write_bytes(b"torn")

    def failing(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EIO, "failed")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing)
        with pytest.raises(StartupError, match="blob folder"):
            FileBlobs(folder)
    FileBlobs(folder).close()
    assert (folder / "0a").is_dir()
    assert not (folder / "0b" / ".tmp-1").exists()
