"""Blobs in files: crashes, failing system calls, and files somebody else put there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.errors import HoldfastError, Reason, StartupError
from holdfast_server.store.damage import BlobMissing
from holdfast_server.store.file_blobs import FileBlobs
from tests.store.helpers import digest, refused

NAME = digest(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def files(folder: Path) -> Iterator[FileBlobs]:
    opened = FileBlobs(folder)
    yield opened
    opened.close()


def fail(monkeypatch: pytest.MonkeyPatch, call: str, code: int, *, after: int = 0) -> None:
    """Let os.`call` fail with this errno, once `after` calls have passed."""
    real: Callable[..., Any] = getattr(os, call)
    calls = iter(range(1_000))

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= after:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, failing)


def lying(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize(("call", "after"), [("write", 0), ("fsync", 0), ("fsync", 1), ("rename", 0)])
def test_a_failed_write_is_never_acknowledged_and_leaves_nothing(
    files: FileBlobs, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: int, code: int
) -> None:
    files.put(digest(2), b"earlier")
    with monkeypatch.context() as patch:
        fail(patch, call, code, after=after)
        with refused(Reason.INTERNAL if code == errno.EIO else Reason.STORE_FULL) as caught:
            files.put(NAME, b"content")
    assert str(folder) not in caught.value.message
    assert lying(folder) == [digest(2)]
    assert files.get(digest(2)) == b"earlier"
    assert files.put(NAME, b"content")
    assert files.get(NAME) == b"content"


def test_a_failed_sync_is_not_repeated(files: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def failing(descriptor: int) -> None:
        synced.append(descriptor)
        raise OSError(errno.EIO, "failed")

    monkeypatch.setattr(os, "fsync", failing)
    with refused(Reason.INTERNAL):
        files.put(NAME, b"content")
    assert len(synced) == 1


def test_a_known_blob_is_not_acknowledged_before_its_folder_is_synced(
    files: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.put(NAME, b"content")
    fail(monkeypatch, "fsync", errno.EIO)
    with refused(Reason.INTERNAL):
        files.put(NAME, b"content")
    assert files.get(NAME) == b"content"


def test_short_writes_are_continued(files: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    files.put(NAME, b"0123456789")
    assert files.get(NAME) == b"0123456789"


def test_temporary_files_of_a_crash_are_swept_and_never_listed(folder: Path) -> None:
    FileBlobs(folder).close()
    torn = folder / "00" / ".tmp-0123456789abcdef"
    torn.write_bytes(b"torn")
    opened = FileBlobs(folder)
    assert not torn.exists()
    torn.write_bytes(b"another")
    assert list(opened.names()) == []
    opened.close()


def test_foreign_files_are_not_blobs(files: FileBlobs, folder: Path) -> None:
    (folder / "00" / "notes.txt").write_bytes(b"x")
    (folder / "01" / NAME).write_bytes(b"x")  # in the wrong subfolder
    assert list(files.names()) == []


def test_links_are_never_followed(files: FileBlobs, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    link = folder / "00" / NAME
    link.symlink_to(outside)
    with pytest.raises(BlobMissing):
        files.get(NAME)
    assert files.put(NAME, b"content")
    assert outside.read_bytes() == b"secret"
    assert not link.is_symlink()
    assert files.get(NAME) == b"content"


def test_a_linked_subfolder_is_refused(files: FileBlobs, folder: Path, tmp_path: Path) -> None:
    (folder / "00").rmdir()
    (folder / "00").symlink_to(tmp_path)
    with refused(Reason.INTERNAL):
        files.put(NAME, b"content")
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_missing_and_hangs_nobody(files: FileBlobs, folder: Path, kind: str) -> None:
    path = folder / "00" / NAME
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(BlobMissing):
        files.get(NAME)


def test_an_unreadable_file_is_replaced(files: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    files.put(NAME, b"content")
    with monkeypatch.context() as patch:
        fail(patch, "read", errno.EIO)
        assert files.put(NAME, b"content")
    assert files.get(NAME) == b"content"


def test_reopening_finds_what_was_put(folder: Path) -> None:
    first = FileBlobs(folder)
    first.put(NAME, b"content")
    first.close()
    first.close()
    second = FileBlobs(folder)
    assert second.get(NAME) == b"content"
    second.close()


def test_files_are_the_owners_alone(files: FileBlobs, folder: Path) -> None:
    files.put(NAME, b"content")
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "00" / NAME).stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_is_a_startup_error(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"a file")
    with pytest.raises(StartupError, match="cannot use the blob folder"):
        FileBlobs(tmp_path / "blobs")


def test_errors_keep_their_cause(files: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, "write", errno.ENOSPC)
    with pytest.raises(HoldfastError) as caught:
        files.put(NAME, b"content")
    assert isinstance(caught.value.__cause__, OSError)
