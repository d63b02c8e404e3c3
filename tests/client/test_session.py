"""A session's handle: what it sends, and how it keeps track of the revision."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

import holdfast
from holdfast import AsyncClient, AsyncSession, HoldfastError, StaleRevisionError
from holdfast.v1 import chunk_pb2, session_pb2
from holdfast.v1 import session_service_pb2 as pb
from tests.client.conftest import Fake
from tests.client.fake import Failure


def sent_chunks(fake: Fake) -> list[chunk_pb2.Chunk]:
    request = fake.service.requests[-1]
    assert isinstance(request, pb.AppendChunksRequest)
    return list(request.chunks)


async def test_append_to_a_chat_session_speaks_as_user(fake: Fake, session: AsyncSession) -> None:
    usage = await session.append(holdfast.system("Be brief."), "What is this?", b"picture")
    assert usage.prompt_tokens == 7
    assert sent_chunks(fake) == [
        chunk_pb2.Chunk(role=chunk_pb2.ROLE_SYSTEM, text="Be brief."),
        chunk_pb2.Chunk(role=chunk_pb2.ROLE_USER, text="What is this?"),
        chunk_pb2.Chunk(role=chunk_pb2.ROLE_USER, image=chunk_pb2.Media(data=b"picture")),
    ]


async def test_append_in_another_role(fake: Fake, session: AsyncSession) -> None:
    await session.append("4", holdfast.assistant("So it is 4."), role="tool")
    assert [chunk.role for chunk in sent_chunks(fake)] == [chunk_pb2.ROLE_TOOL, chunk_pb2.ROLE_ASSISTANT]


async def test_append_to_a_raw_session_has_no_role(fake: Fake, client: AsyncClient) -> None:
    session = await client.create_session(chat_format="raw")
    await session.append("a", holdfast.text("<|im_end|>", parse_special=True))
    assert sent_chunks(fake) == [
        chunk_pb2.Chunk(text="a"),
        chunk_pb2.Chunk(text="<|im_end|>", parse_special=True),
    ]


async def test_append_of_nothing_is_left_to_the_server(fake: Fake, session: AsyncSession) -> None:
    fake.service.failures["AppendChunks"] = Failure(grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_CHUNKS")
    with pytest.raises(holdfast.InvalidArgumentError) as failed:
        await session.append()
    assert failed.value.reason == "EMPTY_CHUNKS"


async def test_an_unknown_role_fails_before_the_call(fake: Fake, session: AsyncSession) -> None:
    with pytest.raises(ValueError, match="narrator"):
        await session.append("Once", role="narrator")
    assert len(fake.service.requests) == 1


async def test_the_revision_is_followed_and_passed_along(fake: Fake, session: AsyncSession) -> None:
    await session.append("a")
    await session.append("b")
    await session.complete()
    await session.checkpoint()
    assert [request.expected_revision for request in fake.service.requests[1:]] == [0, 1, 2, 3]  # type: ignore[attr-defined]
    assert session.revision == session.info.revision == 3


async def test_another_writer_is_noticed_until_refresh(client: AsyncClient, session: AsyncSession) -> None:
    other = await client.session("alice")
    await other.append("mine")
    for attempt in (session.append("yours"), session.complete(), session.checkpoint()):
        with pytest.raises(StaleRevisionError) as failed:
            await attempt
        assert failed.value.current_revision == 1
    assert (await session.refresh()).revision == 1
    await session.append("yours")
    assert session.revision == 2


async def test_the_check_can_be_switched_off(client: AsyncClient, session: AsyncSession) -> None:
    other = await client.session("alice")
    await other.append("mine")
    session.check_revision = False
    await session.append("yours")
    assert session.revision == 2


async def test_after_a_broken_generation_the_handle_asks_where_the_session_stands(
    fake: Fake, client: AsyncClient, session: AsyncSession
) -> None:
    await (await client.session("alice")).append("meanwhile")
    fake.service.failures["Generate"] = Failure(grpc.StatusCode.INTERNAL, "INTERNAL", times=1)
    with pytest.raises(holdfast.ServerError):
        await session.complete()
    await session.append("a")
    asked, appended = fake.service.requests[-2:]
    assert isinstance(asked, pb.GetSessionRequest)
    assert isinstance(appended, pb.AppendChunksRequest)
    assert appended.expected_revision == 1
    await session.append("b")
    assert isinstance(fake.service.requests[-2], pb.AppendChunksRequest)


@pytest.mark.parametrize("next_call", ["append", "complete", "checkpoint", "rollback"])
async def test_the_call_after_a_cancelled_generation_waits_for_its_end(
    fake: Fake, session: AsyncSession, next_call: str
) -> None:
    await session.checkpoint("c")
    fake.service.hang_after = 1
    fake.service.unwind_after = asyncio.Event()
    async for _ in session.generate():
        await fake.service.hanging.wait()
        break
    fake.service.hang_after = -1
    arguments = {"append": ["x"], "rollback": ["c"]}.get(next_call, [])
    call = asyncio.create_task(getattr(session, next_call)(*arguments))
    asked = len(fake.service.requests) + 2
    while len(fake.service.requests) < asked:
        await asyncio.sleep(0)
    fake.service.unwind_after.set()
    await call


async def test_after_a_refused_generation_there_is_nothing_to_ask(fake: Fake, session: AsyncSession) -> None:
    fake.service.failures["Generate"] = Failure(
        grpc.StatusCode.FAILED_PRECONDITION, "NOTHING_TO_GENERATE_FROM", times=1
    )
    with pytest.raises(HoldfastError):
        await session.complete()
    await session.append("a")
    assert isinstance(fake.service.requests[-2], pb.GenerateRequest)


async def test_rollback_returns_to_the_revision_of_the_checkpoint(fake: Fake, session: AsyncSession) -> None:
    await session.append("a")
    checkpoint = await session.checkpoint("low-tide")
    await session.append("b")
    result = await session.rollback(checkpoint)
    assert fake.service.requests[-1] == pb.RestoreRequest(
        checkpoint_id="low-tide", rollback_session_id="alice"
    )
    assert result.session is session
    assert session.revision == 1
    await session.append("c")


async def test_fork_sends_what_it_is_given(fake: Fake, session: AsyncSession) -> None:
    await session.append("a")
    branch = await session.fork("other", revision=1, labels={"a": "b"}, seed=7)
    request: Any = fake.service.requests[-1]
    assert (request.session_id, request.new_session_id, request.revision) == ("alice", "other", 1)
    assert (dict(request.labels), request.sampling.seed) == ({"a": "b"}, 7)
    assert (branch.id, branch.info.sampling.seed) == ("other", 7)
    await branch.append("b")
    assert (branch.revision, session.revision) == (2, 1)
    await session.fork()
    assert not fake.service.requests[-1].HasField("revision")


async def test_checkpoint_sends_what_it_is_given(fake: Fake, session: AsyncSession) -> None:
    await session.checkpoint("low-tide", labels={"a": "b"})
    assert fake.service.requests[-1] == pb.CheckpointRequest(
        session_id="alice", checkpoint_id="low-tide", expected_revision=0, labels={"a": "b"}
    )


async def test_generate_sends_its_overrides(fake: Fake, session: AsyncSession) -> None:
    await session.complete(max_tokens=5, temperature=0.0, stop=("a", "b"))
    assert fake.service.requests[-1] == pb.GenerateRequest(
        session_id="alice",
        sampling=session_pb2.SamplingParams(max_tokens=5, temperature=0.0, stop=["a", "b"]),
        expected_revision=0,
    )


async def test_delete(fake: Fake, session: AsyncSession) -> None:
    await session.delete()
    await session.delete()
    assert not fake.service.sessions


async def test_repr(session: AsyncSession) -> None:
    assert repr(session) == "<holdfast.AsyncSession 'alice' template revision=0 tokens=0>"
