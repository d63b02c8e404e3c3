"""A generation as it streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from holdfast import _convert
from holdfast._channel import translated
from holdfast._types import Completion, Delta, Finish
from holdfast.errors import HoldfastError, ServerError

if TYPE_CHECKING:
    from holdfast.v1.session_service_pb2 import GenerateRequest, GenerateResponse

    Call = grpc.aio.UnaryStreamCall[GenerateRequest, GenerateResponse]


class AsyncGeneration:
    """Pieces of text as the model makes them; afterwards the whole and how it ended.

        async for piece in session.generate(max_tokens=100):
            print(piece, end="")

    The call starts when the first piece is asked for, and runs once. Leaving
    the loop early cancels it: the server keeps what it had streamed. To be
    certain on interpreters that do not count references, use `async with`.
    """

    def __init__(
        self, start: Callable[[], Awaitable[Call]], ended: Callable[[Finish | HoldfastError | None], None]
    ) -> None:
        """`start` makes the call; `ended` hears once how it ended, None for cancelled."""
        self._start = start
        self._ended: Callable[[Finish | HoldfastError | None], None] | None = ended
        self._call: Call | None = None
        self._stream: AsyncIterator[GenerateResponse] | None = None
        self._pieces: list[str] = []
        self._token_ids: list[int] = []
        self._finish: Finish | None = None

    @property
    def text(self) -> str:
        """What has been generated so far; everything once the iteration is over."""
        return "".join(self._pieces)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens sampled so far."""
        return tuple(self._token_ids)

    @property
    def finish(self) -> Finish:
        """How it ended. Raises RuntimeError before the iteration is over, and after a cancellation."""
        if self._finish is None:
            raise RuntimeError("the generation has not finished")
        return self._finish

    @property
    def done(self) -> bool:
        """Whether it is over: finished, failed or cancelled."""
        return self._ended is None

    async def complete(self) -> Completion:
        """Takes what is left of the stream and returns the whole. Raises HoldfastError."""
        async for _ in self:
            pass
        return Completion(text=self.text, token_ids=self.token_ids, finish=self.finish)

    def cancel(self) -> None:
        """Stops it. The server journals the tokens it had streamed. Does nothing when it is over."""
        if self._call is not None:
            self._call.cancel()
        self._end(None)

    def __aiter__(self) -> AsyncIterator[Delta]:
        return _Loop(self)

    async def __anext__(self) -> Delta:
        if self.done:
            raise StopAsyncIteration
        try:
            event = await self._next_event()
        except HoldfastError as error:
            if self.done:  # by `cancel` from elsewhere
                raise StopAsyncIteration from None
            self._end(error)
            raise
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._take(event)

    async def _next_event(self) -> Delta | Finish:
        """The next event of a kind that this client knows."""
        with translated():
            events = await self._events()
            async for event in events:
                match event.WhichOneof("event"):
                    case "delta":
                        return _convert.delta(event.delta)
                    case "finish":
                        await anext(events, None)  # the call's status
                        return _convert.finish(event.finish)
        raise ServerError("the stream ended without a finish", code=grpc.StatusCode.INTERNAL)

    async def _events(self) -> AsyncIterator[GenerateResponse]:
        if self._stream is None:
            self._call = await self._start()
            if self.done:  # cancelled meanwhile
                self._call.cancel()
            self._stream = aiter(self._call)
        return self._stream

    def _take(self, event: Delta | Finish) -> Delta:
        """Keeps a delta; at the finish, ends the iteration."""
        if isinstance(event, Finish):
            self._finish = event
            self._end(event)
            raise StopAsyncIteration
        self._pieces.append(event)
        self._token_ids.extend(event.token_ids)
        return event

    def _end(self, how: Finish | HoldfastError | None) -> None:
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended(how)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        state = (
            self._finish.reason
            if self._finish
            else "over"
            if self.done
            else "running"
            if self._call
            else "new"
        )
        return f"<holdfast.{type(self).__name__} {state}, {len(self._token_ids)} tokens: {self.text!r}>"


class _Loop:
    """One `async for` over a generation: when the loop lets go of it, the call is cancelled."""

    def __init__(self, generation: AsyncGeneration) -> None:
        self._generation = generation

    def __aiter__(self) -> _Loop:
        return self

    async def __anext__(self) -> Delta:
        return await anext(self._generation)

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the event loop is closed, and the call with it
            self._generation.cancel()
