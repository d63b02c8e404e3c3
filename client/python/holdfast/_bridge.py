"""Coroutines for callers that have no event loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_A = TypeVar("_A")


class Bridge:
    """An event loop on a thread of its own, begun when first used.

    Any thread may call it, also one that runs an event loop itself. A bridge
    that is forgotten stops when it is collected, at the latest at exit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: weakref.finalize[..., Bridge] | None = None

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Waits for a coroutine; an interrupt (Ctrl-C) cancels it. Raises RuntimeError once closed."""
        if self.closed:
            coroutine.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._started())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call_soon(self, function: Callable[[], object]) -> None:
        """Runs a function on the loop, before anything that is asked for later; not once closed.

        Takes no lock and never waits, so that finalizers may call it.
        """
        if self._loop is None:
            function()
            return
        with suppress(RuntimeError):  # closed, and all calls with it
            self._loop.call_soon_threadsafe(function)

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._stop is not None and not self._stop.alive

    def close(self) -> None:
        """Ends the loop and waits for its thread. Closing twice is fine."""
        if self._stop is not None:
            self._stop()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_serve, args=(self._loop,), name="holdfast", daemon=True)
                thread.start()
                self._stop = weakref.finalize(self, _shut_down, self._loop, thread)
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """The thread: runs the loop until it is stopped, then tidies up as asyncio.run does."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_tidy())
        loop.close()


async def _tidy() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


def _shut_down(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join()


class Face(Protocol[_A]):
    """A synchronous object in front of an asynchronous one."""

    _bridge: Bridge
    _async: _A


def sync(
    method: Callable[Concatenate[_A, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[Any, _P], _T]:
    """The synchronous face of a method: same name, arguments and documentation."""

    @wraps(method)
    def face(self: Face[_A], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._bridge.run(method(self._async, *args, **kwargs))

    return face


def sync_iterator(
    method: Callable[Concatenate[_A, _P], AsyncIterator[_T]],
) -> Callable[Concatenate[Any, _P], Iterator[_T]]:
    """The synchronous face of an asynchronous generator method."""

    @wraps(method)
    def face(self: Face[_A], /, *args: _P.args, **kwargs: _P.kwargs) -> Iterator[_T]:
        items = method(self._async, *args, **kwargs)
        try:
            while (item := self._bridge.run(next_item(items))) is not None:
                yield item
        finally:
            if isinstance(items, AsyncGenerator):
                self._bridge.run(items.aclose())

    return face


async def next_item(items: AsyncIterator[_T]) -> _T | None:
    """The next item; None when there is none."""
    return await anext(items, None)
