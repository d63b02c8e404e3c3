"""Export and import of the fake server: one file, and connections that break where they are told to."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from holdfast.v1 import checkpoint_pb2, transfer_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class FakeTransfers:
    """Serves `file` in frames of `frame_bytes`, and takes files in."""

    def __init__(self) -> None:
        self.file = b""
        self.frame_bytes = 1000
        self.offsets: list[int] = []
        """Where each export and each import that brought something began."""
        self.breaks: list[int] = []
        """Bytes after which the next calls break off, one each."""
        self.corrupt = False
        """Exports say another digest than the file's."""
        self.uploads: dict[str, bytearray] = {}
        self.imported: dict[str, bytes] = {}

    async def ExportCheckpoint(  # noqa: N802
        self, request: transfer_pb2.ExportCheckpointRequest, context: Context
    ) -> AsyncIterator[transfer_pb2.ExportCheckpointResponse]:
        self.offsets.append(request.offset)
        left = self.breaks.pop(0) if self.breaks else len(self.file) + 1
        for offset in range(request.offset, max(len(self.file), request.offset + 1), self.frame_bytes):
            if left <= 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the line went dead")
            end = min(offset + self.frame_bytes, len(self.file))
            left -= end - offset
            frame = transfer_pb2.ExportCheckpointResponse(offset=offset, data=self.file[offset:end])
            if end == len(self.file):
                frame.total_bytes = end
                frame.digest = hashlib.sha256(self.file + b"!" * self.corrupt).digest()
            yield frame

    async def ImportCheckpoint(  # noqa: N802
        self, request_iterator: AsyncIterator[transfer_pb2.ImportCheckpointRequest], context: Context
    ) -> transfer_pb2.ImportCheckpointResponse:
        first = None
        left = None
        async for message in request_iterator:
            if first is None:
                first = message
                held = self.uploads.setdefault(first.upload_id, bytearray())
            if message.data or message.complete:
                if left is None:
                    self.offsets.append(message.offset)
                    left = self.breaks.pop(0) if self.breaks else 1 << 40
                if left <= 0:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the line went dead")
                left -= len(message.data)
            held[message.offset :] = message.data if message.data else held[message.offset :]
            if message.complete:
                name = first.checkpoint_id or "exported"
                self.imported[name] = bytes(held)
                return transfer_pb2.ImportCheckpointResponse(
                    received_bytes=len(held),
                    checkpoint=checkpoint_pb2.Checkpoint(checkpoint_id=name, token_count=7),
                    pages_imported=True,
                )
        return transfer_pb2.ImportCheckpointResponse(received_bytes=len(held))
