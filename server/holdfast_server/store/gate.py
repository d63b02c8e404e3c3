"""A lock for one event loop: many writers, or one collector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Gate:
    """Shared by writers, exclusive for collection.

    A waiting collector goes before writers that come later, so that steady
    writing cannot keep it out; hence a task that is inside must not enter
    again. Thread: one event loop.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._sharing = 0
        self._excluding = False
        self._waiting = 0  # collectors at the gate

    @property
    def shared(self) -> bool:
        """Whether anybody is inside `sharing()`."""
        return self._sharing > 0

    @asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """Inside together with other sharers."""
        await self._until(lambda: not self._excluding and not self._waiting)
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1
            self._wake()

    @asynccontextmanager
    async def excluding(self) -> AsyncIterator[None]:
        """Inside alone."""
        self._waiting += 1
        try:
            await self._until(lambda: not self._excluding and not self._sharing)
            self._excluding = True
        finally:
            self._waiting -= 1
            self._wake()
        try:
            yield
        finally:
            self._excluding = False
            self._wake()

    async def _until(self, free: Callable[[], bool]) -> None:
        while not free():
            await self._changed.wait()

    def _wake(self) -> None:
        """Let everybody who waits look again; leaving never awaits, so it cannot be cancelled."""
        self._changed.set()
        self._changed = asyncio.Event()
