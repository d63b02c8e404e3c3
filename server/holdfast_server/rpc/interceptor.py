"""Around every call: the server's state, and errors made into statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.rpc.status import to_error, to_status

_SERVICE = "/holdfast.v1.SessionService/"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs only

if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.aio.ServerInterceptor


class Phase(Enum):
    """Whether calls are taken."""

    STARTING = auto()
    SERVING = auto()
    DRAINING = auto()


class Gate(_Interceptor):
    """Refuses calls of the service unless it is serving, and translates what they raise.

    Health and reflection pass in every phase. Event loop only.
    """

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self._running = 0
        self._none_running = asyncio.Event()
        self._none_running.set()

    async def idle(self, seconds: float) -> bool:
        """Waits until no call is running, for at most `seconds`; whether it came to that."""
        try:
            await asyncio.wait_for(self._none_running.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wraps the handler of one call."""
        handler = await continuation(handler_call_details)
        if handler is None or not str(handler_call_details.method).startswith(_SERVICE):
            return handler
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._wrap(handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._wrap(handler.stream_unary), handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._wrap(handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )

    def _wrap(self, method: Any) -> Any:
        # A streaming method is a coroutine too: it writes to the context, so that a
        # cancelled call ends it at once and not when its generator is collected.
        async def call(request: Any, context: Any) -> Any:
            try:
                self._check()
                with self._counted():
                    return await method(request, context)
            # The one place that sees every failure; CancelledError is no Exception and passes.
            except Exception as error:  # noqa: BLE001
                await context.abort_with_status(to_status(to_error(error)))

        return call

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        self._none_running.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._none_running.set()

    def _check(self) -> None:
        if self.phase is Phase.STARTING:
            raise HoldfastError(
                Reason.STARTING, "the server is still loading its model; try again shortly", retry_after=1.0
            )
        if self.phase is Phase.DRAINING:
            raise HoldfastError(
                Reason.DRAINING, "the server is shutting down; connect again in a moment", retry_after=2.0
            )
