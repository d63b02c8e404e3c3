"""The service: each handler checks, delegates, maps and returns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import grpc.aio

from holdfast.v1 import checkpoint_pb2, session_service_pb2, session_service_pb2_grpc, transfer_pb2
from holdfast_server import __version__
from holdfast_server.errors import invalid
from holdfast_server.rpc import convert
from holdfast_server.sessions import lifetimes
from holdfast_server.sessions.checkpoints import Checkpoints, Restored
from holdfast_server.sessions.exporting import export
from holdfast_server.sessions.generation import generate
from holdfast_server.sessions.importing import Imports
from holdfast_server.sessions.manager import Sessions

pb = session_service_pb2
transfer = transfer_pb2
Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

OWNER = "default"
"""Whose everything is, until calls are authenticated."""


class SessionService(session_service_pb2_grpc.SessionServiceServicer):
    """holdfast.v1.SessionService. The methods' contracts stand in the proto."""

    def __init__(self) -> None:
        self._sessions: Sessions | None = None

    def serve(self, sessions: Sessions, *, strict_restore: bool = False) -> None:
        """Hands over what the handlers work on, once it is loaded."""
        self._sessions = sessions
        self._checkpoints = Checkpoints(sessions, strict_restore=strict_restore)
        self._imports = Imports(sessions)

    @property
    def sessions(self) -> Sessions:
        """The sessions; the gate lets no call in before they are there."""
        if self._sessions is None:
            raise RuntimeError("the service is not serving yet")
        return self._sessions

    async def CreateSession(
        self, request: pb.CreateSessionRequest, context: Context
    ) -> pb.CreateSessionResponse:
        view = await self.sessions.create(
            OWNER,
            request.session_id,
            convert.chat_format(request.chat_format),
            convert.sampling(request.sampling),
            request.labels,
            convert.ttl(request),
            request.request_id,
        )
        return pb.CreateSessionResponse(session=convert.session(view))

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        view = await self.sessions.get(OWNER, request.session_id)
        return pb.GetSessionResponse(session=convert.session(view))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        size = convert.page_size(request.page_size)
        views = await self.sessions.list(OWNER, request.page_token, size + 1)
        page, token = _page([convert.session(view) for view in views], size, "session_id")
        return pb.ListSessionsResponse(sessions=page, next_page_token=token)

    async def UpdateSession(
        self, request: pb.UpdateSessionRequest, context: Context
    ) -> pb.UpdateSessionResponse:
        change = convert.changes(request, ("labels", "ttl"))
        view = await lifetimes.update_session(
            self.sessions, OWNER, request.session_id, change.labels, change.ttl
        )
        return pb.UpdateSessionResponse(session=convert.session(view))

    async def DeleteSession(
        self, request: pb.DeleteSessionRequest, context: Context
    ) -> pb.DeleteSessionResponse:
        await self.sessions.delete(OWNER, request.session_id)
        return pb.DeleteSessionResponse()

    async def AppendChunks(
        self, request: pb.AppendChunksRequest, context: Context
    ) -> pb.AppendChunksResponse:
        expected = request.expected_revision if request.HasField("expected_revision") else None
        chunks = convert.chunks(request.chunks)
        view, usage = await self.sessions.append(
            OWNER, request.session_id, chunks, expected, request.request_id
        )
        return pb.AppendChunksResponse(session=convert.session(view), usage=convert.usage(usage))

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:  # type: ignore[override]
        expected = request.expected_revision if request.HasField("expected_revision") else None
        choice = convert.sampling(request.sampling)
        events = generate(self.sessions, OWNER, request.session_id, choice, expected, request.request_id)
        async with aclosing(events):
            async for event in events:
                await context.write(convert.event(event))

    async def Checkpoint(self, request: pb.CheckpointRequest, context: Context) -> pb.CheckpointResponse:
        expected = request.expected_revision if request.HasField("expected_revision") else None
        spec = convert.checkpoint_spec(request)
        record, usage = await self._checkpoints.take(OWNER, request.session_id, spec, expected)
        return pb.CheckpointResponse(checkpoint=convert.checkpoint(record), usage=convert.usage(usage))

    async def Restore(self, request: pb.RestoreRequest, context: Context) -> pb.RestoreResponse:
        target = request.WhichOneof("target")
        if target == "new_session_id":
            restored = await self._checkpoints.restore(
                OWNER, request.checkpoint_id, request.new_session_id, request.request_id
            )
        elif target == "rollback_session_id":
            restored = await self._checkpoints.roll_back(
                OWNER, request.checkpoint_id, request.rollback_session_id
            )
        else:
            raise invalid("target", "must be set: new_session_id or rollback_session_id")
        return _restored(restored)

    async def ForkSession(self, request: pb.ForkSessionRequest, context: Context) -> pb.ForkSessionResponse:
        view, usage = await self.sessions.fork(
            OWNER,
            request.session_id,
            request.new_session_id,
            request.revision if request.HasField("revision") else None,
            convert.sampling(request.sampling),
            request.labels,
            request.request_id,
        )
        return pb.ForkSessionResponse(session=convert.session(view), usage=convert.usage(usage))

    async def GetCheckpoint(
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        record = await self._checkpoints.get(OWNER, request.checkpoint_id)
        return pb.GetCheckpointResponse(checkpoint=convert.checkpoint(record))

    async def ListCheckpoints(
        self, request: pb.ListCheckpointsRequest, context: Context
    ) -> pb.ListCheckpointsResponse:
        size = convert.page_size(request.page_size)
        records = await self._checkpoints.list(
            OWNER, request.session_id, request.page_token, size + 1, automatic=request.include_automatic
        )
        page, token = _page([convert.checkpoint(record) for record in records], size, "checkpoint_id")
        return pb.ListCheckpointsResponse(checkpoints=page, next_page_token=token)

    async def UpdateCheckpoint(
        self, request: pb.UpdateCheckpointRequest, context: Context
    ) -> pb.UpdateCheckpointResponse:
        change = convert.changes(request, ("labels", "ttl", "pinned"))
        record = await lifetimes.update_checkpoint(
            self.sessions, OWNER, request.checkpoint_id, change.labels, change.ttl, change.pinned
        )
        return pb.UpdateCheckpointResponse(checkpoint=convert.checkpoint(record))

    async def DeleteCheckpoint(
        self, request: pb.DeleteCheckpointRequest, context: Context
    ) -> pb.DeleteCheckpointResponse:
        await self._checkpoints.delete(OWNER, request.checkpoint_id)
        return pb.DeleteCheckpointResponse()

    async def ExportCheckpoint(self, request: transfer.ExportCheckpointRequest, context: Context) -> None:  # type: ignore[override]
        frames = export(self.sessions.store, OWNER, request.checkpoint_id, request.offset)
        async with aclosing(frames):
            async for frame in frames:
                await context.write(convert.frame(frame))

    async def ImportCheckpoint(
        self, request_iterator: AsyncIterator[transfer.ImportCheckpointRequest], context: Context
    ) -> transfer.ImportCheckpointResponse:
        return convert.imported(await self._imports.receive(OWNER, convert.parts(request_iterator)))

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        info = self.sessions.engine.info
        return pb.GetServerInfoResponse(
            version=__version__,
            llama_cpp_version=info.library_version,
            model=convert.model(info),
            limits=convert.limits(self.sessions.limits, info),
            slot_count=info.slots,
            cell_count=info.cells,
            compatibility_key=info.compatibility_key,
        )


def _page(items: Sequence[T], size: int, id_field: str) -> tuple[Sequence[T], str]:
    """One page of items, and the id to go on after where there are more."""
    if len(items) <= size:
        return items, ""
    return items[:size], str(getattr(items[size - 1], id_field))


def _restored(restored: Restored) -> pb.RestoreResponse:
    rebuilt = checkpoint_pb2.RESTORE_MODE_REBUILT
    return pb.RestoreResponse(
        session=convert.session(restored.session),
        mode=rebuilt if restored.rebuild_reason else checkpoint_pb2.RESTORE_MODE_RESTORED,
        rebuild_reason=restored.rebuild_reason,
        usage=convert.usage(restored.usage),
    )
