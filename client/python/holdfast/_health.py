"""grpc.health.v1, spoken without a package of its own.

`StringValue` and `Int32Value` have the wire form of HealthCheckRequest (field 1,
a string) and HealthCheckResponse (field 1, an enum).
"""

# ruff: noqa: ASYNC109 (a gRPC deadline travels to the server; asyncio.timeout does not)
from __future__ import annotations

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from holdfast._channel import call, translated
from holdfast._types import ServingStatus
from holdfast.errors import UnavailableError

_STATUSES = (
    ServingStatus.UNKNOWN,
    ServingStatus.SERVING,
    ServingStatus.NOT_SERVING,
    ServingStatus.SERVICE_UNKNOWN,
)


async def check(connection: grpc.aio.Channel, timeout: float | None) -> ServingStatus:
    """The server's word on itself. Raises HoldfastError where there is none."""
    method = connection.unary_unary("/grpc.health.v1.Health/Check", StringValue.SerializeToString, _status)
    return await call(method, StringValue(), timeout)


async def wait_until_serving(connection: grpc.aio.Channel, timeout: float | None) -> None:
    """Watches until the server says SERVING, from before it listens if need be.

    Raises DeadlineError when it does not within `timeout` seconds, and
    UnavailableError when it ends before.
    """
    method = connection.unary_stream("/grpc.health.v1.Health/Watch", StringValue.SerializeToString, _status)
    watch = method(StringValue(), timeout=timeout, wait_for_ready=True)
    with translated():
        async for status in watch:
            if status is ServingStatus.SERVING:
                watch.cancel()
                return
    raise UnavailableError("the server stopped before it was serving", code=grpc.StatusCode.UNAVAILABLE)


def _status(data: bytes) -> ServingStatus:
    number = Int32Value.FromString(data).value
    return _STATUSES[number] if 0 <= number < len(_STATUSES) else ServingStatus.UNKNOWN
