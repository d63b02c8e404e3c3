"""Blobs as files: `aa/aabbcc...` below one folder.

A file appears under its name only when it is whole and on the disk: it is
written under a temporary name in the same subfolder, synced, renamed, and the
subfolder synced. Everything is opened relative to directory descriptors and
without following links, so that nobody can lead a name elsewhere.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast_server.errors import HoldfastError, Reason, StartupError
from holdfast_server.store.blobs import BlobStore, check_blob_name, is_blob_name
from holdfast_server.store.damage import BlobMissing

_SUBFOLDERS = [f"{number:02x}" for number in range(256)]
_TEMPORARY = ".tmp-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe somebody put there must not hang the thread.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT}
_ABSENT = {errno.ENOENT, errno.ELOOP, errno.ENXIO}
_COMPARED_BYTES = 1 << 20


class FileBlobs(BlobStore):
    """Blobs in a folder of 256 subfolders, made when missing.

    One process at a time: opening removes the temporary files of a crashed
    one. The folder's lock is the caller's.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            with _descriptor(str(folder.parent), _FOLDER & ~os.O_NOFOLLOW, None) as parent:
                os.fsync(parent)
            self._root = os.open(folder, _FOLDER)
            self._prepare()
        except OSError as error:
            raise StartupError(f"cannot use the blob folder {folder}: {error.strerror}") from error

    def put(self, name: str, data: bytes) -> bool:
        with _translated("write"), self._subfolder(name) as parent:
            if _holds(parent, name, data):
                # Whoever wrote it may have died before syncing the folder.
                os.fsync(parent)
                return False
            _write(parent, name, data)
            return True

    def get(self, name: str, *, limit: int | None = None) -> bytes:
        with (
            _translated("read"),
            self._subfolder(name) as parent,
            _opened(parent, name) as descriptor,
            os.fdopen(descriptor, "rb", closefd=False) as file,
        ):
            return file.read(-1 if limit is None else limit)

    def size(self, name: str) -> int:
        with _translated("read"), self._subfolder(name) as parent, _opened(parent, name) as descriptor:
            return os.fstat(descriptor).st_size

    def delete(self, name: str) -> bool:
        with _translated("delete"), self._subfolder(name) as parent:
            try:
                os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                return False
            return True

    def names(self) -> Iterator[str]:
        for folder in _SUBFOLDERS:
            with _translated("list"), _descriptor(folder, _FOLDER, self._root) as parent:
                found = _listed(parent)
            yield from (name for name in found if is_blob_name(name) and name.startswith(folder))

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _prepare(self) -> None:
        """Make the subfolders and sweep temporary files."""
        for folder in _SUBFOLDERS:
            with suppress(FileExistsError):
                os.mkdir(folder, mode=0o700, dir_fd=self._root)
            with _descriptor(folder, _FOLDER, self._root) as parent:
                for name in _listed(parent):
                    if name.startswith(_TEMPORARY):
                        os.unlink(name, dir_fd=parent)
        os.fsync(self._root)

    @contextmanager
    def _subfolder(self, name: str) -> Iterator[int]:
        with _descriptor(check_blob_name(name)[:2], _FOLDER, self._root) as parent:
            yield parent


def _listed(parent: int) -> list[str]:
    with os.scandir(parent) as found:
        return [entry.name for entry in found]


def _holds(parent: int, name: str, data: bytes) -> bool:
    """Whether exactly these bytes lie under the name: a file of the right name proves nothing."""
    try:
        with _opened(parent, name) as descriptor:
            if os.fstat(descriptor).st_size != len(data):
                return False
            view = memoryview(data)
            while view.nbytes:
                found = os.read(descriptor, min(view.nbytes, _COMPARED_BYTES))
                if not found or found != view[: len(found)]:
                    return False
                view = view[len(found) :]
            return True
    except BlobMissing:
        return False
    except OSError as error:
        if error.errno == errno.EIO:  # an unreadable file is a damaged one
            return False
        raise


def _write(parent: int, name: str, data: bytes) -> None:
    temporary = _TEMPORARY + secrets.token_hex(8)
    placed = temporary
    try:
        with _descriptor(temporary, _CREATE, parent) as descriptor:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        placed = name
        os.fsync(parent)
    except OSError:
        # After a failed sync nothing says what reached the disk, and a second
        # sync would lie: the file goes, and a later put writes it anew.
        with suppress(OSError):
            os.unlink(placed, dir_fd=parent)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view.nbytes:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _opened(parent: int, name: str) -> Iterator[int]:
    """The regular file of that name; BlobMissing when there is none."""
    try:
        descriptor = os.open(name, _READ, dir_fd=parent)
    except OSError as error:
        if error.errno in _ABSENT:
            raise BlobMissing(f"blob {name} is missing") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BlobMissing(f"blob {name} is missing")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _descriptor(path: str, flags: int, parent: int | None) -> Iterator[int]:
    descriptor = os.open(path, flags, mode=0o600, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Turn the system's errors into the two that callers know."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise HoldfastError(Reason.STORE_FULL, "the server's disk is full") from error
        raise HoldfastError(Reason.INTERNAL, f"the store failed to {action} a blob") from error
