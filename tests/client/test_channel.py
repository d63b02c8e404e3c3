"""Retries, message sizes and foreign cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest

from holdfast import AsyncClient, AsyncSession, HoldfastError, UnavailableError
from tests.client.conftest import Fake
from tests.client.fake import Failure


def draining(times: int) -> Failure:
    return Failure(grpc.StatusCode.UNAVAILABLE, "DRAINING", times=times)


async def test_reads_are_tried_again_when_unavailable(fake: Fake, client: AsyncClient) -> None:
    fake.service.failures["GetServerInfo"] = draining(times=2)
    assert (await client.server_info()).version == "9.9"
    assert len(fake.service.requests) == 3


async def test_reads_are_not_tried_for_ever(fake: Fake, client: AsyncClient) -> None:
    fake.service.failures["GetServerInfo"] = draining(times=100)
    with pytest.raises(UnavailableError):
        await client.server_info()
    assert len(fake.service.requests) == 4


async def test_writes_are_tried_once(fake: Fake, client: AsyncClient, session: AsyncSession) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "AppendChunks": lambda: session.append("x"),
        "Checkpoint": session.checkpoint,
        "Restore": lambda: client.restore("c"),
        "DeleteSession": session.delete,
        "Generate": session.complete,
    }
    for name, call in calls.items():
        fake.service.failures[name] = draining(times=1)
        fake.service.requests.clear()
        with pytest.raises(UnavailableError) as failed:
            await call()
        assert failed.value.reason == "DRAINING"
        assert len(fake.service.requests) == 1


async def test_a_message_of_60_mib_passes(fake: Fake, session: AsyncSession) -> None:
    await session.append(bytes(60 * 1024 * 1024))
    assert fake.service.requests[-1].ByteSize() > 60 * 1024 * 1024


async def test_a_call_cancelled_by_closing_is_an_error_and_no_cancellation(
    fake: Fake, client: AsyncClient, session: AsyncSession
) -> None:
    fake.service.hang_after = 0
    task = asyncio.create_task(session.complete())
    await fake.service.hanging.wait()
    await client.close()
    with pytest.raises(HoldfastError) as failed:
        await task
    assert failed.value.code is grpc.StatusCode.CANCELLED
