"""The client."""

# ruff: noqa: ASYNC109 (a gRPC deadline travels to the server; asyncio.timeout does not)
from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from os import PathLike
from types import TracebackType
from typing import BinaryIO, Self, Unpack

from holdfast import _convert, _health, _transfer
from holdfast._channel import Channel, call
from holdfast._session import AsyncSession, checkpoint_id, restore_result
from holdfast._transfer import Progress
from holdfast._types import (
    CheckpointInfo,
    ExportResult,
    ImportResult,
    RestoreResult,
    SamplingOptions,
    ServerInfo,
    ServingStatus,
    SessionInfo,
)
from holdfast.v1 import session_pb2
from holdfast.v1 import session_service_pb2 as pb

DEFAULT_ADDRESS = "127.0.0.1:50051"


class AsyncClient:
    """A connection to a Holdfast server.

        async with AsyncClient() as client:
            session = await client.create_session()
            await session.append("What is this?", Path("kelp.jpg"))
            async for piece in session.generate():
                print(piece, end="")

    `timeout`, in seconds, bounds calls that do not wait for the model; the
    others (generate, checkpoint, restore, rollback) take their own. It connects
    when first used. Belongs to one event loop; safe for many tasks in it.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout: float | None = 60.0) -> None:
        self._channel = Channel(address)
        self._timeout = timeout

    @property
    def address(self) -> str:
        """Where the server listens."""
        return self._channel.address

    async def create_session(
        self,
        session_id: str = "",
        *,
        chat_format: str | None = None,
        labels: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncSession:
        """Creates an empty session. Empty id: the server chooses.

        `chat_format` is "template", "raw", or None for the model's template
        where it has one. The server deletes the session when it has not been
        used for `ttl` (1 second to 10 years; None is for ever). `sampling` sets
        the session's defaults. Raises HoldfastError.
        """
        request = pb.CreateSessionRequest(
            session_id=session_id,
            chat_format=_convert.chat_format_to_pb(chat_format),
            sampling=_convert.sampling_to_pb(sampling),
            labels=labels,
            ttl=_convert.duration_to_pb(ttl),
        )
        response = await call(self._channel.stub.CreateSession, request, self._timeout)
        return self._handle(response.session)

    async def session(self, session_id: str) -> AsyncSession:
        """A handle for a session that exists. Raises NotFoundError where it does not."""
        request = pb.GetSessionRequest(session_id=session_id)
        response = await call(self._channel.stub.GetSession, request, self._timeout)
        return self._handle(response.session)

    async def list_sessions(self, *, page_size: int = 0) -> AsyncIterator[SessionInfo]:
        """All sessions in the order of their ids, read page by page. Raises HoldfastError."""
        token = ""
        while True:
            request = pb.ListSessionsRequest(page_size=page_size, page_token=token)
            page = await call(self._channel.stub.ListSessions, request, self._timeout)
            for session in page.sessions:
                yield _convert.session_info(session)
            if not (token := page.next_page_token):
                return

    async def delete_session(self, session_id: str) -> None:
        """Deletes a session; its checkpoints stay. Fine where there is none. Raises HoldfastError."""
        request = pb.DeleteSessionRequest(session_id=session_id)
        await call(self._channel.stub.DeleteSession, request, self._timeout)

    async def restore(
        self, checkpoint: CheckpointInfo | str, session_id: str = "", *, timeout: float | None = None
    ) -> RestoreResult[AsyncSession]:
        """Brings a checkpoint back as a new session. Empty id: the server chooses.

        Look at `mode` for whether its state came from pages or was recomputed.
        Raises HoldfastError.
        """
        request = pb.RestoreRequest(checkpoint_id=checkpoint_id(checkpoint), new_session_id=session_id)
        response = await call(self._channel.stub.Restore, request, timeout)
        return restore_result(self._handle(response.session), response)

    async def get_checkpoint(self, checkpoint_id: str) -> CheckpointInfo:
        """Reads a checkpoint's description. Raises NotFoundError where there is none."""
        request = pb.GetCheckpointRequest(checkpoint_id=checkpoint_id)
        response = await call(self._channel.stub.GetCheckpoint, request, self._timeout)
        return _convert.checkpoint_info(response.checkpoint)

    async def list_checkpoints(
        self, session_id: str = "", *, page_size: int = 0
    ) -> AsyncIterator[CheckpointInfo]:
        """Checkpoints in the order of their ids, of one session or of all. Raises HoldfastError."""
        token = ""
        while True:
            request = pb.ListCheckpointsRequest(session_id=session_id, page_size=page_size, page_token=token)
            page = await call(self._channel.stub.ListCheckpoints, request, self._timeout)
            for checkpoint in page.checkpoints:
                yield _convert.checkpoint_info(checkpoint)
            if not (token := page.next_page_token):
                return

    async def update_checkpoint(
        self,
        checkpoint: CheckpointInfo | str,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
        forever: bool = False,
        pinned: bool | None = None,
    ) -> CheckpointInfo:
        """Changes what is given and leaves the rest. Raises HoldfastError.

        `ttl` counts from the checkpoint's creation; `forever` takes it away.
        What is pinned stays whatever its age and however full the store is.
        """
        if forever and ttl is not None:
            raise ValueError("give ttl or forever, not both")
        given = {
            "labels": labels is not None,
            "ttl": ttl is not None or forever,
            "pinned": pinned is not None,
        }
        if not any(given.values()):
            return await self.get_checkpoint(checkpoint_id(checkpoint))
        request = pb.UpdateCheckpointRequest(
            checkpoint_id=checkpoint_id(checkpoint),
            labels=labels,
            ttl=_convert.duration_to_pb(ttl),
            pinned=bool(pinned),
            update_mask=_convert.changed(**given),
        )
        response = await call(self._channel.stub.UpdateCheckpoint, request, self._timeout)
        return _convert.checkpoint_info(response.checkpoint)

    async def delete_checkpoint(self, checkpoint: CheckpointInfo | str) -> None:
        """Deletes a checkpoint. Fine where there is none. Raises HoldfastError."""
        request = pb.DeleteCheckpointRequest(checkpoint_id=checkpoint_id(checkpoint))
        await call(self._channel.stub.DeleteCheckpoint, request, self._timeout)

    async def export_checkpoint(
        self,
        checkpoint: CheckpointInfo | str,
        target: str | PathLike[str] | BinaryIO,
        progress: Progress | None = None,
    ) -> ExportResult:
        """Saves a checkpoint as a file that another server can import.

        `target` is a path or a binary file. A broken connection is resumed. At a
        path, the bytes gather beside it in `<name>.part`; what an earlier
        attempt left there is gone on with, and the file appears when it is
        whole. `progress` is called with the bytes that are done, and the total
        or None. Raises HoldfastError.
        """
        return await _transfer.export(self._channel, checkpoint_id(checkpoint), target, progress)

    async def import_checkpoint(
        self,
        source: str | PathLike[str] | BinaryIO,
        checkpoint_id: str = "",
        progress: Progress | None = None,
    ) -> ImportResult:
        """Makes a checkpoint of an exported file. Empty id: the one it was exported under.

        `source` is a path or a binary file; where it can be sought in, a broken
        connection is resumed. `progress` is called with the bytes that are
        sent, and the total or None. Raises HoldfastError.
        """
        return await _transfer.import_(self._channel, source, checkpoint_id, progress)

    async def server_info(self) -> ServerInfo:
        """Versions, model and limits. Raises HoldfastError."""
        request = pb.GetServerInfoRequest()
        return _convert.server_info(await call(self._channel.stub.GetServerInfo, request, self._timeout))

    async def health(self) -> ServingStatus:
        """Whether the server serves. Raises UnavailableError where no server answers."""
        return await _health.check(self._channel.connection, self._timeout)

    async def wait_until_serving(self, timeout: float | None = None) -> None:
        """Waits for a server that is starting, at most `timeout` seconds.

        Raises DeadlineError when it does not serve by then.
        """
        await _health.wait_until_serving(self._channel.connection, timeout)

    async def close(self) -> None:
        """Cancels what runs and closes the connection. Closing twice is fine."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _handle(self, session: session_pb2.Session) -> AsyncSession:
        return AsyncSession(self._channel, _convert.session_info(session), self._timeout)

    def __repr__(self) -> str:
        state = " closed" if self._channel.closed else ""
        return f"<holdfast.{type(self).__name__} {self.address}{state}>"
