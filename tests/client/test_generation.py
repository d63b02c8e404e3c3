"""Streaming: pieces, the whole, and every way of leaving early."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from holdfast import AsyncSession, DeadlineError, FinishReason, ServerError, SessionBusyError
from tests.client.conftest import Fake
from tests.client.fake import Failure


async def test_pieces_then_the_whole(session: AsyncSession) -> None:
    generation = session.generate()
    pieces = [piece async for piece in generation]
    assert pieces == ["Hold", "", "fast."]
    assert [piece.token_ids for piece in pieces] == [(0,), (1,), (2,)]
    assert generation.done
    assert generation.text == "Holdfast."
    assert generation.token_ids == (0, 1, 2)
    assert generation.finish.reason is FinishReason.END_OF_TURN
    assert generation.finish.session.revision == session.revision == 1
    assert [piece async for piece in generation] == []


async def test_complete_returns_the_whole(session: AsyncSession) -> None:
    completion = await session.complete()
    assert str(completion) == completion.text == "Holdfast."
    assert completion.token_ids == (0, 1, 2)
    assert completion.finish.session.revision == 1


async def test_the_first_piece_by_hand_and_the_rest_in_a_loop(session: AsyncSession) -> None:
    generation = session.generate()
    assert await anext(generation) == "Hold"
    assert not generation.done
    completion = await generation.complete()
    assert completion.text == "Holdfast."


async def test_nothing_is_called_before_the_iteration(fake: Fake, session: AsyncSession) -> None:
    generation = session.generate()
    assert repr(generation) == "<holdfast.AsyncGeneration new, 0 tokens: ''>"
    with pytest.raises(RuntimeError, match="not finished"):
        _ = generation.finish
    assert len(fake.service.requests) == 1


async def test_leaving_the_loop_early_cancels_the_call(fake: Fake, session: AsyncSession) -> None:
    fake.service.hang_after = 2
    generation = session.generate()
    async for piece in generation:
        if piece == "":
            break
    await fake.service.cancelled.wait()
    assert generation.done
    assert generation.text == "Hold"
    assert repr(generation) == "<holdfast.AsyncGeneration over, 2 tokens: 'Hold'>"
    with pytest.raises(RuntimeError, match="not finished"):
        _ = generation.finish
    await session.append("more")
    assert session.revision == 2


async def test_an_error_in_the_loop_cancels_the_call(fake: Fake, session: AsyncSession) -> None:
    fake.service.hang_after = 1
    with pytest.raises(LookupError):
        async for _ in session.generate():
            raise LookupError
    await fake.service.cancelled.wait()


async def test_leaving_the_with_block_cancels_the_call(fake: Fake, session: AsyncSession) -> None:
    fake.service.hang_after = 1
    async with session.generate() as generation:
        await anext(generation)
    await fake.service.cancelled.wait()


async def test_cancelling_the_task_cancels_the_call(fake: Fake, session: AsyncSession) -> None:
    fake.service.hang_after = 1
    task = asyncio.create_task(session.complete())
    await fake.service.hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await fake.service.cancelled.wait()


async def test_cancel_from_elsewhere_ends_the_loop_quietly(fake: Fake, session: AsyncSession) -> None:
    fake.service.hang_after = 1
    generation = session.generate()
    arrived = asyncio.Event()

    async def read() -> None:
        async for _ in generation:
            arrived.set()

    reader = asyncio.create_task(read())
    await arrived.wait()
    generation.cancel()
    generation.cancel()
    await reader
    assert generation.text == "Hold"
    await fake.service.cancelled.wait()


async def test_cancel_before_the_start_calls_nothing(fake: Fake, session: AsyncSession) -> None:
    generation = session.generate()
    generation.cancel()
    assert [piece async for piece in generation] == []
    assert len(fake.service.requests) == 1


async def test_a_refusal_is_raised_by_the_loop(fake: Fake, session: AsyncSession) -> None:
    fake.service.failures["Generate"] = Failure(grpc.StatusCode.ABORTED, "SESSION_BUSY", retry_after=1.5)
    generation = session.generate()
    with pytest.raises(SessionBusyError) as failed:
        await anext(generation)
    assert failed.value.retry_after == 1.5
    assert generation.done


async def test_a_timeout_ends_it(fake: Fake, session: AsyncSession) -> None:
    fake.service.hang_after = 0
    with pytest.raises(DeadlineError):
        await session.complete(timeout=0.05)


async def test_a_stream_without_its_finish_is_an_error(fake: Fake, session: AsyncSession) -> None:
    fake.service.omit_finish = True
    with pytest.raises(ServerError, match="without a finish"):
        await session.complete()


def test_a_generation_outlives_its_event_loop(fake_elsewhere: Fake) -> None:
    """Letting go of a half-read generation after the loop is closed does no harm."""
    from holdfast import AsyncClient, AsyncGeneration

    fake_elsewhere.service.hang_after = 1

    async def leave_open() -> AsyncGeneration:
        client = AsyncClient(fake_elsewhere.address)
        generation = (await client.create_session()).generate()
        await anext(generation)
        return generation

    generation = asyncio.run(leave_open())
    iterator = aiter(generation)
    del iterator
    assert generation.text == "Hold"
