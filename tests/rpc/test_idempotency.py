"""request_id: a retry gets what the first call made, and nothing is done twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast.v1 import session_pb2
from tests.calls import append, checkpoint, create, generate, image, pb, png, refusal, text
from tests.conftest import RunningServer, StartServer

REUSED = (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def revision(stub: Any, session_id: str = "a") -> int:
    session = (await stub.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    return int(session.revision)


@pytest.mark.parametrize("name", ["", "chosen"])
async def test_a_created_session_is_found_again(server: RunningServer, name: str) -> None:
    first = await create(server.stub, name, request_id="r1")
    assert await create(server.stub, name, request_id="r1") == first
    assert (await refusal(create(server.stub, first.session_id, request_id="r2")))[1] == "SESSION_EXISTS"
    assert (await refusal(create(server.stub, first.session_id)))[1] == "SESSION_EXISTS"
    assert (await create(server.stub, "", request_id="r3")).session_id != first.session_id


async def test_an_append_is_done_once(server: RunningServer) -> None:
    await create(server.stub)
    chunks = (text("hello"), image(png()))
    first = await append(server.stub, *chunks, request_id="r1", expected_revision=0)
    await append(server.stub, text("more"))
    again = await append(server.stub, *chunks, request_id="r1", expected_revision=0)
    assert await revision(server.stub) == 2
    assert (again.session.revision, again.session.token_count) == (1, first.session.token_count)
    assert again.usage.prompt_tokens == first.usage.prompt_tokens
    assert (await refusal(append(server.stub, text("other"), request_id="r1")))[:2] == REUSED
    assert (await refusal(generate(server.stub, request_id="r1")))[:2] == REUSED


async def test_appends_that_come_at_once_are_done_once(server: RunningServer) -> None:
    await create(server.stub)
    await asyncio.gather(*(append(server.stub, text("hello"), request_id="r1") for _ in range(20)))
    assert await revision(server.stub) == 1


async def test_a_generation_is_streamed_again_and_not_made_again(server: RunningServer) -> None:
    await create(server.stub)
    await append(server.stub, text("hello"))
    words, tokens, finish = await generate(server.stub, request_id="r1")
    again = await generate(server.stub, request_id="r1")
    assert (again[0], again[1], again[2].reason) == (words, tokens, finish.reason)
    assert await revision(server.stub) == 2
    usage = again[2].usage
    assert (usage.prefilled_tokens, usage.generated_tokens) == (0, len(tokens))
    assert (await refusal(append(server.stub, text("x"), request_id="r1")))[:2] == REUSED


async def test_a_generation_that_broke_off_is_told_as_it_was(server: RunningServer) -> None:
    await create(server.stub)
    await append(server.stub, text("hello"))
    long = session_pb2.SamplingParams(temperature=0, max_tokens=1500)
    call = server.stub.Generate(pb.GenerateRequest(session_id="a", sampling=long, request_id="r1"))
    seen = list((await call.read()).delta.token_ids)
    call.cancel()
    while await revision(server.stub) == 1:
        await asyncio.sleep(0.01)
    _, tokens, finish = await generate(server.stub, sampling=long, request_id="r1")
    assert finish.reason == pb.FINISH_REASON_CANCELLED
    assert tokens[: len(seen)] == seen
    assert len(tokens) < 1500
    assert await revision(server.stub) == 2


@pytest.mark.parametrize("name", ["", "chosen"])
async def test_checkpoints_restores_and_forks_are_made_once(server: RunningServer, name: str) -> None:
    await create(server.stub)
    await append(server.stub, text("hello"))
    first = await checkpoint(server.stub, checkpoint_id=name, request_id="r1")
    await append(server.stub, text("more"))
    again = await checkpoint(server.stub, checkpoint_id=name, request_id="r1")
    assert again.checkpoint == first.checkpoint
    assert again.usage.pages_written == 0
    taken = first.checkpoint.checkpoint_id
    request = pb.RestoreRequest(checkpoint_id=taken, new_session_id=name and "b", request_id="r2")
    restored = [(await server.stub.Restore(request)).session.session_id for _ in range(2)]
    assert restored[0] == restored[1]
    branch = pb.ForkSessionRequest(session_id="a", new_session_id=name and "d", request_id="r3")
    forked = [(await server.stub.ForkSession(branch)).session.session_id for _ in range(2)]
    assert forked[0] == forked[1]
    listed = await server.stub.ListSessions(pb.ListSessionsRequest())
    assert len(listed.sessions) == 3


async def test_retries_are_known_after_a_restart(start_server: StartServer, tmp_path: Path) -> None:
    before = await start_server(data_dir=tmp_path / "d")
    await create(before.stub, request_id="r0")
    await append(before.stub, text("hello"), request_id="r1")
    words, tokens, _ = await generate(before.stub, request_id="r2")
    await before.server.drain(0)
    after = await start_server(data_dir=tmp_path / "d")
    await create(after.stub, request_id="r0")
    await append(after.stub, text("hello"), request_id="r1")
    assert (await generate(after.stub, request_id="r2"))[:2] == (words, tokens)
    assert await revision(after.stub) == 2


@pytest.mark.parametrize("bad", ["a b", "é", "x" * 129, "a/b"])
async def test_request_ids_that_are_none(server: RunningServer, bad: str) -> None:
    await create(server.stub)
    for call in (create(server.stub, "b", request_id=bad), append(server.stub, text("x"), request_id=bad)):
        assert (await refusal(call))[1] == "INVALID_FIELD"
