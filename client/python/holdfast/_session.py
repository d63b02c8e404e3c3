"""A session, as a client holds it."""

# ruff: noqa: ASYNC109 (a gRPC deadline travels to the server; asyncio.timeout does not)
from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Unpack

from holdfast import _convert, _parts
from holdfast._channel import Channel, call
from holdfast._generation import AsyncGeneration
from holdfast._parts import Part
from holdfast._types import (
    ChatFormat,
    CheckpointInfo,
    Completion,
    Finish,
    RestoreResult,
    Role,
    SamplingOptions,
    SessionInfo,
    SessionState,
    Usage,
)
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)
from holdfast.v1 import session_pb2
from holdfast.v1 import session_service_pb2 as pb

if TYPE_CHECKING:
    from holdfast._generation import Call

_REFUSALS = (ConflictError, InvalidArgumentError, NotFoundError, PreconditionError)
"""Errors after which a session is as it was."""

_SETTLE_SECONDS = (0.005, 5.0)
"""First and last wait for a cancelled generation to be wound up; each is twice the one before."""


class AsyncSession:
    """An append-only conversation on the server.

    The handle remembers the revision it last saw and passes it along, so that
    a call fails with StaleRevisionError when someone else has written in
    between; `refresh()` accepts what they wrote. Set `check_revision` to False
    to write regardless. After a generation that was cancelled or broke off, the
    next call first waits until the server has wound it up.

    Made by a client; not for use from several tasks at once.
    """

    def __init__(self, channel: Channel, info: SessionInfo, timeout: float | None) -> None:
        self._channel = channel
        self._timeout = timeout
        self._info = info
        self._unsettled = False
        self.check_revision = True

    @property
    def id(self) -> str:
        """The session's id."""
        return self._info.session_id

    @property
    def info(self) -> SessionInfo:
        """The session as the server last described it."""
        return self._info

    @property
    def revision(self) -> int:
        """The revision this handle last saw."""
        return self._info.revision

    async def append(self, *parts: Part, role: str | None = None) -> Usage:
        """Appends parts as one journal entry, all of them or none; durable when it returns.

        A part is text, a picture (file bytes, path or Pillow picture) or a
        chunk such as `holdfast.system("...")`. `role` holds for parts that name
        none: None means "user" in a chat session and no role in a raw one.
        Raises HoldfastError, OSError for a file that cannot be read, TypeError
        for what is no part.
        """
        chunks = await asyncio.to_thread(_parts.to_pb, parts, role or self._implied_role())
        request = pb.AppendChunksRequest(
            session_id=self.id, chunks=chunks, expected_revision=await self._expected_revision()
        )
        response = await call(self._channel.stub.AppendChunks, request, self._timeout)
        self._saw(response.session)
        return _convert.usage(response.usage)

    def generate(
        self, *, timeout: float | None = None, **sampling: Unpack[SamplingOptions]
    ) -> AsyncGeneration:
        """Starts a generation when iterated over: `async for piece in session.generate(): ...`.

        `sampling` overrides the session's defaults; `timeout` is in seconds for
        the whole of it. Iterating raises HoldfastError.
        """
        overrides = _convert.sampling_to_pb(sampling)
        return AsyncGeneration(partial(self._start, overrides, timeout), self._generated)

    async def complete(
        self, *, timeout: float | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Completion:
        """Generates, and returns the whole when it is finished. Raises HoldfastError."""
        return await self.generate(timeout=timeout, **sampling).complete()

    async def checkpoint(
        self,
        checkpoint_id: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
        pinned: bool = False,
        timeout: float | None = None,
    ) -> CheckpointInfo:
        """Freezes the session as it is; durable when it returns. Empty id: the server chooses.

        The server deletes it after `ttl` (1 second to 10 years; None is never);
        what is `pinned` stays whatever its age and however full the store is.
        Waits for what is still being computed, so that `timeout` (seconds) is
        none unless given. Raises HoldfastError.
        """
        request = pb.CheckpointRequest(
            session_id=self.id,
            checkpoint_id=checkpoint_id,
            expected_revision=await self._expected_revision(),
            labels=labels,
            ttl=_convert.duration_to_pb(ttl),
            pinned=pinned,
        )
        response = await call(self._channel.stub.Checkpoint, request, timeout)
        return _convert.checkpoint_info(response.checkpoint, response.usage)

    async def fork(
        self,
        session_id: str = "",
        *,
        revision: int | None = None,
        labels: Mapping[str, str] | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncSession:
        """A branch of the session, as it is or as it was at `revision`; copies nothing.

        Empty id: the server chooses. `sampling` overrides the session's
        defaults: a `seed` of its own makes a branch sample differently. Raises
        HoldfastError.
        """
        request = pb.ForkSessionRequest(
            session_id=self.id,
            new_session_id=session_id,
            revision=revision,
            sampling=_convert.sampling_to_pb(sampling),
            labels=labels,
        )
        response = await call(self._channel.stub.ForkSession, request, self._timeout)
        return AsyncSession(self._channel, _convert.session_info(response.session), self._timeout)

    async def rollback(
        self, checkpoint: CheckpointInfo | str, *, timeout: float | None = None
    ) -> RestoreResult[AsyncSession]:
        """Returns to a checkpoint of this session; what came after is dropped. Raises HoldfastError."""
        await self._expected_revision()
        request = pb.RestoreRequest(checkpoint_id=checkpoint_id(checkpoint), rollback_session_id=self.id)
        response = await call(self._channel.stub.Restore, request, timeout)
        self._saw(response.session)
        return restore_result(self, response)

    async def refresh(self) -> SessionInfo:
        """Asks the server; accepts what others wrote. Raises HoldfastError."""
        request = pb.GetSessionRequest(session_id=self.id)
        response = await call(self._channel.stub.GetSession, request, self._timeout)
        self._saw(response.session)
        return self._info

    async def update(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
        forever: bool = False,
    ) -> SessionInfo:
        """Changes what is given and leaves the rest; `forever` takes the ttl away. Raises HoldfastError."""
        if forever and ttl is not None:
            raise ValueError("give ttl or forever, not both")
        given = {"labels": labels is not None, "ttl": ttl is not None or forever}
        if not any(given.values()):
            return await self.refresh()
        request = pb.UpdateSessionRequest(
            session_id=self.id,
            labels=labels,
            ttl=_convert.duration_to_pb(ttl),
            update_mask=_convert.changed(**given),
        )
        response = await call(self._channel.stub.UpdateSession, request, self._timeout)
        seen = _convert.session_info(response.session)
        # Not the revision: what others wrote is accepted by `refresh` alone.
        self._info = replace(self._info, labels=seen.labels, ttl=seen.ttl, expire_time=seen.expire_time)
        return self._info

    async def delete(self) -> None:
        """Deletes the session; its checkpoints stay. Deleting twice is fine. Raises HoldfastError."""
        request = pb.DeleteSessionRequest(session_id=self.id)
        await call(self._channel.stub.DeleteSession, request, self._timeout)

    def _implied_role(self) -> Role | None:
        return None if self._info.chat_format is ChatFormat.RAW else Role.USER

    async def _expected_revision(self) -> int | None:
        """The revision to pass along, once what was cancelled has been wound up."""
        if self._unsettled:
            await self._settle()
        return self._info.revision if self.check_revision else None

    async def _settle(self) -> None:
        """The server may learn of a cancellation later than the caller's next call."""
        delay = _SETTLE_SECONDS[0]
        while (await self.refresh()).state is SessionState.GENERATING and delay < _SETTLE_SECONDS[1]:
            await asyncio.sleep(delay)
            delay *= 2

    def _saw(self, session: session_pb2.Session) -> None:
        self._info = _convert.session_info(session)
        self._unsettled &= self._info.state is SessionState.GENERATING

    async def _start(self, overrides: session_pb2.SamplingParams, timeout: float | None) -> Call:
        request = pb.GenerateRequest(
            session_id=self.id, sampling=overrides, expected_revision=await self._expected_revision()
        )
        return self._channel.stub.Generate(request, timeout=timeout)

    def _generated(self, how: Finish | HoldfastError | None) -> None:
        """Keeps track of the revision after a generation, however it ended."""
        if isinstance(how, Finish):
            self._info = how.session
        elif not isinstance(how, _REFUSALS):
            self._unsettled = True

    def __repr__(self) -> str:
        return f"<holdfast.{type(self).__name__} {describe(self._info)}>"


def describe(info: SessionInfo) -> str:
    """A session in a few words."""
    return f"{info.session_id!r} {info.chat_format} revision={info.revision} tokens={info.token_count}"


def checkpoint_id(checkpoint: CheckpointInfo | str) -> str:
    """The id of a checkpoint given either way."""
    return checkpoint if isinstance(checkpoint, str) else checkpoint.checkpoint_id


def restore_result(session: AsyncSession, response: pb.RestoreResponse) -> RestoreResult[AsyncSession]:
    """The client's view of a Restore."""
    return RestoreResult(
        session=session,
        mode=_convert.restore_mode(response.mode),
        rebuild_reason=response.rebuild_reason,
        usage=_convert.usage(response.usage),
    )
