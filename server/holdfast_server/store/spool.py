"""Bytes from outside, kept until they are whole: a file without a name.

Nothing can be led to it, and it is gone with its descriptor, however the
process ends.
"""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast_server.errors import HoldfastError, Reason


class Spool:
    """A file that grows at its end and can be cut back.

    Thread: any, one at a time; every method may block on I/O. Errors:
    `HoldfastError` with STORE_FULL or INTERNAL. Not durable.
    """

    def __init__(self, folder: Path | None) -> None:
        """In `folder`, or where the system keeps temporary files."""
        self.size = 0
        with _translated():
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed by `close`)
        # Also where whoever asked for it was cancelled before it had it.
        self._close = weakref.finalize(self, self._file.close)

    def write(self, offset: int, data: bytes) -> None:
        """Put the data at `offset`, at most `size`; what lay there and behind it is gone."""
        if not 0 <= offset <= self.size:
            raise ValueError("a spool has no gaps")
        with _translated():
            self._cut(offset)
            view = memoryview(data)
            try:
                while view.nbytes:
                    written = os.pwrite(self._file.fileno(), view, self.size)
                    self.size += written
                    view = view[written:]
            except OSError:
                self._cut(offset)
                raise

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on: `size` of them, or fewer at the end."""
        with _translated():
            parts = []
            while size > 0 and (part := os.pread(self._file.fileno(), size, offset)):
                parts.append(part)
                offset, size = offset + len(part), size - len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let the file go. Idempotent."""
        self._close()

    def _cut(self, size: int) -> None:
        if size < self.size:
            os.ftruncate(self._file.fileno(), size)
            self.size = size


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HoldfastError(Reason.STORE_FULL, "the server's disk is full") from error
        raise HoldfastError(Reason.INTERNAL, "the store failed to keep an upload") from error
