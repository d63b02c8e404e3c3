"""A Holdfast server without a model: it answers as told and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health
from grpc_status import rpc_status

from holdfast.v1 import checkpoint_pb2, session_pb2, usage_pb2
from holdfast.v1 import session_service_pb2 as pb
from holdfast.v1.session_service_pb2_grpc import SessionServiceServicer
from tests.client.fake_transfer import FakeTransfers

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Failure:
    """How a call fails; `times` calls, then it works again."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "no"
    metadata: dict[str, str] | None = None
    field: str = ""
    retry_after: float | None = None
    times: int = 1_000
    domain: str = "holdfast"

    async def abort(self, context: Context) -> None:
        await context.abort_with_status(rpc_status.to_status(self.status()))  # type: ignore[attr-defined]

    def status(self) -> status_pb2.Status:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self._details():
            status.details.add().Pack(detail)
        return status

    def _details(self) -> list[Message]:
        details: list[Message] = []
        if self.reason:
            details.append(
                error_details_pb2.ErrorInfo(
                    reason=self.reason, domain=self.domain, metadata=self.metadata or {}
                )
            )
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description="is wrong")
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        return details


class FakeService(FakeTransfers, SessionServiceServicer):
    """Sessions in a dictionary; every append and every generation is one revision."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Message] = []
        self.failures: dict[str, Failure] = {}
        self.sessions: dict[str, session_pb2.Session] = {}
        self.checkpoints: dict[str, checkpoint_pb2.Checkpoint] = {}
        self.pieces = ["Hold", "", "fast."]
        self.hang_after = -1
        """Generate streams so many deltas and then waits to be cancelled; -1: it ends."""
        self.omit_finish = False
        self.unwind_after: asyncio.Event | None = None
        """A cancelled Generate keeps its session busy until this is set."""
        self.hanging = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def _called(self, request: Message, context: Context) -> None:
        self.requests.append(request)
        failure = self.failures.get(type(request).__name__.removesuffix("Request"))
        if failure and failure.times > 0:
            failure.times -= 1
            await failure.abort(context)

    async def _session(self, session_id: str, context: Context) -> session_pb2.Session:
        if session_id not in self.sessions:
            await Failure(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND").abort(context)
        return self.sessions[session_id]

    async def _checked(self, request: Any, context: Context) -> session_pb2.Session:
        session = await self._session(request.session_id, context)
        if session.state == session_pb2.SESSION_STATE_GENERATING:
            await Failure(grpc.StatusCode.ABORTED, "SESSION_BUSY").abort(context)
        if request.HasField("expected_revision") and request.expected_revision != session.revision:
            current = {"current_revision": str(session.revision)}
            await Failure(grpc.StatusCode.ABORTED, "STALE_REVISION", metadata=current).abort(context)
        return session

    async def CreateSession(  # noqa: N802
        self, request: pb.CreateSessionRequest, context: Context
    ) -> pb.CreateSessionResponse:
        await self._called(request, context)
        name = request.session_id or f"s-{len(self.sessions)}"
        chat_format = request.chat_format or session_pb2.CHAT_FORMAT_TEMPLATE
        session = session_pb2.Session(
            session_id=name, chat_format=chat_format, sampling=request.sampling, labels=request.labels
        )
        self.sessions[name] = session
        return pb.CreateSessionResponse(session=session)

    async def ForkSession(  # noqa: N802
        self, request: pb.ForkSessionRequest, context: Context
    ) -> pb.ForkSessionResponse:
        await self._called(request, context)
        branch = session_pb2.Session()
        branch.CopyFrom(await self._session(request.session_id, context))
        branch.session_id = request.new_session_id or f"s-{len(self.sessions)}"
        branch.sampling.MergeFrom(request.sampling)
        if request.HasField("revision"):
            branch.revision = request.revision
        self.sessions[branch.session_id] = branch
        return pb.ForkSessionResponse(session=branch)

    async def GetSession(  # noqa: N802
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        await self._called(request, context)
        return pb.GetSessionResponse(session=await self._session(request.session_id, context))

    async def ListSessions(  # noqa: N802
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        await self._called(request, context)
        names, token = _page(sorted(self.sessions), request)
        return pb.ListSessionsResponse(sessions=[self.sessions[n] for n in names], next_page_token=token)

    async def DeleteSession(  # noqa: N802
        self, request: pb.DeleteSessionRequest, context: Context
    ) -> pb.DeleteSessionResponse:
        await self._called(request, context)
        self.sessions.pop(request.session_id, None)
        return pb.DeleteSessionResponse()

    async def AppendChunks(  # noqa: N802
        self, request: pb.AppendChunksRequest, context: Context
    ) -> pb.AppendChunksResponse:
        await self._called(request, context)
        session = await self._checked(request, context)
        session.revision += 1
        return pb.AppendChunksResponse(session=session, usage=usage_pb2.Usage(prompt_tokens=7))

    async def Generate(  # noqa: N802
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        await self._called(request, context)
        session = await self._checked(request, context)
        finished = False
        try:
            for number, piece in enumerate(self.pieces):
                if number == self.hang_after:
                    await self._hang(session)
                yield pb.GenerateResponse(delta=pb.Delta(text=piece, token_ids=[number]))
            yield pb.GenerateResponse()  # an event of a later contract
            session.revision += 1
            if not self.omit_finish:
                yield pb.GenerateResponse(
                    finish=pb.Finish(reason=pb.FINISH_REASON_END_OF_TURN, session=session)
                )
            finished = True
        finally:
            if not finished:
                self.cancelled.set()

    async def _hang(self, session: session_pb2.Session) -> None:
        session.state = session_pb2.SESSION_STATE_GENERATING
        self.hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            if self.unwind_after:
                await self.unwind_after.wait()
            session.state = session_pb2.SESSION_STATE_IDLE
            session.revision += 1

    async def Checkpoint(  # noqa: N802
        self, request: pb.CheckpointRequest, context: Context
    ) -> pb.CheckpointResponse:
        await self._called(request, context)
        session = await self._checked(request, context)
        checkpoint = checkpoint_pb2.Checkpoint(
            checkpoint_id=request.checkpoint_id or f"c-{len(self.checkpoints)}",
            session_id=session.session_id,
            revision=session.revision,
            labels=request.labels,
        )
        self.checkpoints[checkpoint.checkpoint_id] = checkpoint
        return pb.CheckpointResponse(checkpoint=checkpoint, usage=usage_pb2.Usage(pages_written=2))

    async def Restore(  # noqa: N802
        self, request: pb.RestoreRequest, context: Context
    ) -> pb.RestoreResponse:
        await self._called(request, context)
        checkpoint = self.checkpoints[request.checkpoint_id]
        name = request.rollback_session_id or request.new_session_id or "restored"
        session = session_pb2.Session(
            session_id=name, revision=checkpoint.revision, chat_format=session_pb2.CHAT_FORMAT_TEMPLATE
        )
        self.sessions[name] = session
        return pb.RestoreResponse(
            session=session,
            mode=checkpoint_pb2.RESTORE_MODE_REBUILT,
            rebuild_reason="PAGE_CORRUPT",
            usage=usage_pb2.Usage(prefilled_tokens=9),
        )

    async def UpdateSession(  # noqa: N802
        self, request: pb.UpdateSessionRequest, context: Context
    ) -> pb.UpdateSessionResponse:
        await self._called(request, context)
        session = await self._session(request.session_id, context)
        changed = session_pb2.Session(labels=request.labels, ttl=request.ttl, revision=session.revision)
        return pb.UpdateSessionResponse(session=changed)

    async def UpdateCheckpoint(  # noqa: N802
        self, request: pb.UpdateCheckpointRequest, context: Context
    ) -> pb.UpdateCheckpointResponse:
        await self._called(request, context)
        checkpoint = checkpoint_pb2.Checkpoint(checkpoint_id=request.checkpoint_id, pinned=request.pinned)
        return pb.UpdateCheckpointResponse(checkpoint=checkpoint)

    async def GetCheckpoint(  # noqa: N802
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        await self._called(request, context)
        if request.checkpoint_id not in self.checkpoints:
            await Failure(grpc.StatusCode.NOT_FOUND, "CHECKPOINT_NOT_FOUND").abort(context)
        return pb.GetCheckpointResponse(checkpoint=self.checkpoints[request.checkpoint_id])

    async def ListCheckpoints(  # noqa: N802
        self, request: pb.ListCheckpointsRequest, context: Context
    ) -> pb.ListCheckpointsResponse:
        await self._called(request, context)
        of_session = [
            name
            for name, checkpoint in sorted(self.checkpoints.items())
            if request.session_id in ("", checkpoint.session_id)
        ]
        names, token = _page(of_session, request)
        return pb.ListCheckpointsResponse(
            checkpoints=[self.checkpoints[n] for n in names], next_page_token=token
        )

    async def DeleteCheckpoint(  # noqa: N802
        self, request: pb.DeleteCheckpointRequest, context: Context
    ) -> pb.DeleteCheckpointResponse:
        await self._called(request, context)
        self.checkpoints.pop(request.checkpoint_id, None)
        return pb.DeleteCheckpointResponse()

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        await self._called(request, context)
        return pb.GetServerInfoResponse(version="9.9", model=pb.Model(name="fake", vision=True))


def _page(names: list[str], request: Any) -> tuple[list[str], str]:
    start = int(request.page_token or 0)
    end = start + (request.page_size or 100)
    return names[start:end], str(end) if end < len(names) else ""


class FakeHealth(health.aio.HealthServicer):  # type: ignore[name-defined,misc]
    """The real health service; it also tells that somebody watches."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = asyncio.Event()

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802
        self.watched.set()
        await super().Watch(request, context)
