"""Clients that go away at any moment leave sessions whole, and nothing behind."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest

from holdfast.v1 import session_pb2
from tests.calls import RAW, append, checkpoint, create, generate, pb, raw, restore
from tests.conftest import RunningServer, StartServer


async def given_up(call: grpc.aio.UnaryUnaryCall[object, object]) -> bool:
    """Cancels a call after a moment; whether it was answered all the same."""
    try:
        await asyncio.wait_for(call, random.random() * 0.01)
    except (TimeoutError, asyncio.CancelledError, grpc.aio.AioRpcError):
        return False
    return True


async def test_appends_that_are_given_up_are_whole_or_not_there(server: RunningServer) -> None:
    await create(server.stub, chat_format=RAW)
    random.seed(5)
    answered = 0
    for _ in range(200):
        answered += await given_up(
            server.stub.AppendChunks(pb.AppendChunksRequest(session_id="a", chunks=[raw("x")]))
        )
    after = (await append(server.stub, raw("y"))).session
    assert after.token_count == after.revision
    assert answered < after.revision <= 201
    await generate(server.stub)
    taken = await checkpoint(server.stub)
    assert (await restore(server.stub)).usage.restored_tokens == taken.checkpoint.token_count - 1


@pytest.mark.parametrize("parallel", [1, 4])
async def test_a_storm_of_cancelled_generations_leaves_no_slot_taken(
    start_server: StartServer, parallel: int
) -> None:
    server = await start_server(parallel=parallel, autosave="evict")
    random.seed(6)
    names = [f"s{number}" for number in range(6)]
    for name in names:
        await create(server.stub, name, chat_format=RAW)
        await append(server.stub, raw(f"{name} {'kelp ' * 20}"), session_id=name)
    long = session_pb2.SamplingParams(temperature=0, max_tokens=60)

    async def try_once() -> None:
        call = server.stub.Generate(pb.GenerateRequest(session_id=random.choice(names), sampling=long))
        try:
            async with asyncio.timeout(random.random() * 0.1):
                async for _ in call:
                    pass
        except (TimeoutError, asyncio.CancelledError, grpc.aio.AioRpcError):
            call.cancel()

    for _ in range(10):
        await asyncio.gather(*(try_once() for _ in range(20)))
    while server.server.sessions.busy:
        await asyncio.sleep(0.005)
    for name in names:
        session = (await server.stub.GetSession(pb.GetSessionRequest(session_id=name))).session
        assert session.state == session_pb2.SESSION_STATE_IDLE
        room = 2048 - session.token_count
        if room > 20:
            tokens = (await generate(server.stub, name))[1]
            assert len(tokens) == 12
