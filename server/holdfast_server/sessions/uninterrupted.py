"""Work that must not stop half-way because a client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Runs short work to its end, and only then lets a cancellation through.

    For what changes the catalog and the session in memory together: a caller
    that is cancelled between the two would leave them apart.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the caller is gone, and nobody else asks
        raise
