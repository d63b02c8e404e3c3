"""What lies on disk, and whether it is in memory too."""

from __future__ import annotations

import os
import time
from pathlib import Path


def disk_bytes(folder: Path) -> int:
    """Blocks that all files below `folder` take, in bytes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def evict(folder: Path) -> None:
    """Takes all files below `folder` out of the page cache, so that the next read comes from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def read_all(folder: Path) -> None:
    """Reads all files below `folder`, so that they are in the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()


def fsync_seconds(folder: Path, count: int) -> list[float]:
    """How long appending 4 KiB to a file and syncing it takes, `count` times."""
    path = folder / "fsync-probe"
    samples = []
    with path.open("ab", buffering=0) as file:
        for _ in range(count):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            samples.append(time.perf_counter() - started)
    path.unlink()
    return samples
