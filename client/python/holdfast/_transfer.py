"""Checkpoints as files: streamed out of one server and into another, resumed when a connection breaks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from holdfast import _convert
from holdfast._channel import Channel, translated
from holdfast._types import ExportResult, ImportResult
from holdfast.errors import DataLossError, HoldfastError, ServerError, UnavailableError
from holdfast.v1 import transfer_pb2 as pb

Progress = Callable[[int, int | None], object]
"""Called with the bytes that are done, and how many there are where that is known."""

_FRAME_BYTES = 1 << 20
_ATTEMPTS = 5
"""Broken connections in a row, without a byte between, after which it fails."""


async def export(
    channel: Channel, checkpoint_id: str, target: str | os.PathLike[str] | BinaryIO, progress: Progress | None
) -> ExportResult:
    """See AsyncClient.export_checkpoint."""
    if not isinstance(target, str | os.PathLike):
        return await _Export(channel, checkpoint_id, target, progress).run()
    path = Path(target)
    partial = path.with_name(path.name + ".part")
    with await asyncio.to_thread(partial.open, "a+b") as file:
        started = await asyncio.to_thread(os.path.getsize, partial)
        try:
            result = await _Export(channel, checkpoint_id, file, progress).run(started)
        except _NotTheSameError:
            file.truncate(0)
            result = await _Export(channel, checkpoint_id, file, progress).run()
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    await asyncio.to_thread(partial.replace, path)
    return result


class _NotTheSameError(Exception):
    """What had been there is no beginning of this file."""


class _Export:
    """One export into a binary file, over as many calls as it takes."""

    def __init__(
        self, channel: Channel, checkpoint_id: str, file: BinaryIO, progress: Progress | None
    ) -> None:
        self._channel = channel
        self._checkpoint_id = checkpoint_id
        self._file = file
        self._progress = progress
        self._hasher = hashlib.sha256()
        self._done = 0

    async def run(self, started: int = 0) -> ExportResult:
        """`started` bytes are in the file already, which can then be read."""
        if started:
            await asyncio.to_thread(self._read_what_is_there, started)
        left = _ATTEMPTS
        while True:
            before = self._done
            try:
                last = await self._stream()
            except UnavailableError:
                left = _ATTEMPTS if self._done > before else left - 1
                if not left:
                    raise
                continue
            except HoldfastError as error:
                if started and any(violation.field == "offset" for violation in error.fields):
                    raise _NotTheSameError from error
                raise
            return self._check(last, started)

    async def _stream(self) -> pb.ExportCheckpointResponse:
        """One call: the last frame it brought."""
        request = pb.ExportCheckpointRequest(checkpoint_id=self._checkpoint_id, offset=self._done)
        frame = pb.ExportCheckpointResponse()
        with translated():
            async for frame in self._channel.stub.ExportCheckpoint(request, wait_for_ready=self._done > 0):
                await asyncio.to_thread(self._write, frame.data)
                if self._progress is not None:
                    self._progress(self._done, frame.total_bytes or None)
        return frame

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hasher.update(data)
        self._done += len(data)

    def _read_what_is_there(self, size: int) -> None:
        self._file.seek(0)
        while self._done < size and (data := self._file.read(_FRAME_BYTES)):
            self._hasher.update(data)
            self._done += len(data)

    def _check(self, last: pb.ExportCheckpointResponse, started: int) -> ExportResult:
        if (last.total_bytes, last.digest) == (self._done, self._hasher.digest()):
            return ExportResult(total_bytes=self._done, sha256=last.digest.hex())
        if started:
            raise _NotTheSameError
        raise DataLossError("the exported file arrived damaged; export it again", reason="EXPORT_DAMAGED")


async def import_(
    channel: Channel, source: str | os.PathLike[str] | BinaryIO, checkpoint_id: str, progress: Progress | None
) -> ImportResult:
    """See AsyncClient.import_checkpoint."""
    if not isinstance(source, str | os.PathLike):
        return await _Import(channel, source, checkpoint_id, progress).run()
    with await asyncio.to_thread(Path(source).open, "rb") as file:
        return await _Import(channel, file, checkpoint_id, progress).run()


class _Import:
    """One import from a binary file, over as many calls as it takes where the file can be sought in."""

    def __init__(
        self, channel: Channel, file: BinaryIO, checkpoint_id: str, progress: Progress | None
    ) -> None:
        self._channel = channel
        self._file = file
        self._checkpoint_id = checkpoint_id
        self._progress = progress
        self._upload_id = f"u-{secrets.token_hex(8)}"
        self._begin = file.tell() if file.seekable() else None
        self._total = self._measure()
        self._failure: BaseException | None = None

    async def run(self) -> ImportResult:
        left, received = _ATTEMPTS, 0
        while True:
            try:
                return await self._send(received)
            except UnavailableError:
                left -= 1
                if not left or self._begin is None:
                    raise
            before, received = received, await self._received()
            if received > before:
                left = _ATTEMPTS

    async def _received(self) -> int:
        """What the server holds of the upload; waits for a connection."""
        query = pb.ImportCheckpointRequest(upload_id=self._upload_id)
        with translated():
            reply = await self._channel.stub.ImportCheckpoint(iter([query]), wait_for_ready=True)
        return reply.received_bytes

    async def _send(self, start: int) -> ImportResult:
        """One call, from `start` on."""
        if start and self._begin is not None:
            await asyncio.to_thread(self._file.seek, self._begin + start)
        try:
            with translated():
                reply = await self._channel.stub.ImportCheckpoint(self._messages(start))
        except HoldfastError as error:
            if self._failure is not None:
                raise self._failure from None  # reading the file failed, and gRPC cancelled the call
            if isinstance(error, ServerError) and not error.reason:
                # A server gives its reason; gRPC itself says INTERNAL when a connection ends amid a write.
                raise UnavailableError("the connection broke off", code=error.code) from error
            raise
        return ImportResult(
            checkpoint=_convert.checkpoint_info(reply.checkpoint), pages_imported=reply.pages_imported
        )

    async def _messages(self, offset: int) -> AsyncIterator[pb.ImportCheckpointRequest]:
        message = pb.ImportCheckpointRequest(upload_id=self._upload_id, checkpoint_id=self._checkpoint_id)
        try:
            while data := await asyncio.to_thread(self._file.read, _FRAME_BYTES):
                message.offset, message.data = offset, data
                yield message
                message = pb.ImportCheckpointRequest()
                offset += len(data)
                if self._progress is not None:
                    self._progress(offset, self._total)
        except (OSError, ValueError) as error:
            self._failure = error
            raise
        message.complete = True
        yield message

    def _measure(self) -> int | None:
        if self._begin is None:
            return None
        with suppress(OSError):
            end = self._file.seek(0, os.SEEK_END)
            self._file.seek(self._begin)
            return end - self._begin
        return None
