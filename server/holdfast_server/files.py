"""Digests of model files, computed once per version of a file."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from blake3 import blake3

from holdfast_server.errors import StartupError
from holdfast_server.store.catalog import Catalog, FileStamp

_logger = logging.getLogger("holdfast.files")


async def digest(path: Path, catalog: Catalog) -> str:
    """BLAKE3 of the file, hexadecimal; remembered by size, time and inode. Raises StartupError."""
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from error
    stamp = FileStamp(str(resolved), status.st_size, status.st_mtime_ns, status.st_ino)
    known = await catalog.file_digest(stamp)
    if known is None:
        _logger.info("computing the digest of a model file", extra={"bytes": status.st_size})
        known = await asyncio.to_thread(_compute, resolved)
        await catalog.remember_file_digest(stamp, known)
    return known


def _compute(path: Path) -> str:
    try:
        return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from error
