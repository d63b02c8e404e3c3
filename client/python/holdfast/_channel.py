"""One gRPC channel: its options, and the one place where failed calls become exceptions."""

# ruff: noqa: ASYNC109 (a gRPC deadline travels to the server; asyncio.timeout does not)
from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import grpc

from holdfast.errors import HoldfastError, from_rpc_error
from holdfast.v1.session_service_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from holdfast.v1.session_service_pb2_grpc import SessionServiceAsyncStub

_Q = TypeVar("_Q")
_R = TypeVar("_R")

MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message either way; the server's limit too."""

_READS = ("GetSession", "ListSessions", "GetCheckpoint", "ListCheckpoints", "GetServerInfo")
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "holdfast.v1.SessionService", "method": method} for method in _READS],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # Servers take pings more often than every 5 minutes for abuse and hang up.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The default lets a client that waits for its server notice it 2 minutes late.
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class Channel:
    """A connection, made when first used: gRPC binds it to the event loop that runs then.

    Not for use from several event loops.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.closed = False
        self._connection: grpc.aio.Channel | None = None
        self._stub: SessionServiceAsyncStub | None = None

    @property
    def connection(self) -> grpc.aio.Channel:
        """Raises RuntimeError once closed."""
        if self.closed:
            raise RuntimeError("the client is closed")
        if self._connection is None:
            self._connection = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        return self._connection

    @property
    def stub(self) -> SessionServiceAsyncStub:
        """The generated stub. Raises RuntimeError once closed."""
        connection = self.connection
        if self._stub is None:
            self._stub = SessionServiceStub(connection)
        return self._stub

    async def close(self) -> None:
        """Cancels what runs. Closing twice is fine."""
        self.closed = True
        if self._connection is not None:
            await self._connection.close(None)


@contextmanager
def translated() -> Iterator[None]:
    """Raises HoldfastError for what gRPC raises; a task's own cancellation passes as it is."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # gRPC raises this also when the server or a closing channel cancels the call.
        raise HoldfastError("the call was cancelled", code=grpc.StatusCode.CANCELLED) from error
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[_Q, _R], request: _Q, timeout: float | None = None
) -> _R:
    """One unary call; `timeout` in seconds, None for none. Raises HoldfastError."""
    with translated():
        return await method(request, timeout=timeout)
