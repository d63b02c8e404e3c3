"""The data directory: made, tried and locked before anything is opened in it."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from holdfast_server.errors import StartupError

CATALOG = "catalog.sqlite3"
BLOBS = "blobs"
_LOCK = "lock"
_PROBE = ".writable"


def claim(folder: Path) -> int:
    """Make the folder, see that it can be written to, and lock it: the lock's descriptor.

    Closing the descriptor gives the folder up; so does the end of the
    process, however it ends. Raises `StartupError`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _probe(folder / _PROBE)
        _sync(folder)
    except BlockingIOError as error:
        os.close(lock)
        raise StartupError(
            f"data directory {folder} is in use by another holdfast server; stop it first"
        ) from error
    except OSError as error:
        os.close(lock)
        raise _unusable(folder, error) from error
    return lock


def _probe(path: Path) -> None:
    """Write a few bytes for real: permissions and free space as the store will meet them."""
    path.write_bytes(bytes(4096))
    path.unlink()


def _sync(folder: Path) -> None:
    """Make the names in the folder, and its own, survive a power cut."""
    _sync_one(folder)
    with suppress(PermissionError):  # a parent that may not be read is not of our making
        _sync_one(folder.resolve().parent)


def _sync_one(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(folder: Path, error: OSError) -> StartupError:
    return StartupError(f"cannot use data directory {folder}: {error.strerror}")
