"""The asynchronous client against a fake server."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import (
    AsyncClient,
    ChatFormat,
    DeadlineError,
    NotFoundError,
    RestoreMode,
    ServingStatus,
    UnavailableError,
)
from holdfast.v1 import session_pb2
from holdfast.v1 import session_service_pb2 as pb
from tests.client.conftest import Fake


async def test_create_session_sends_what_it_is_given(fake: Fake, client: AsyncClient) -> None:
    session = await client.create_session(
        "alice", chat_format="raw", labels={"a": "b"}, temperature=0.5, seed=7, stop=["x"]
    )
    assert fake.service.requests[-1] == pb.CreateSessionRequest(
        session_id="alice",
        chat_format=session_pb2.CHAT_FORMAT_RAW,
        sampling=session_pb2.SamplingParams(temperature=0.5, seed=7, stop=["x"]),
        labels={"a": "b"},
    )
    assert session.info.chat_format is ChatFormat.RAW
    assert session.info.sampling.seed == 7
    assert session.info.sampling.max_tokens is None
    assert session.info.labels == {"a": "b"}


async def test_zero_is_sent_and_unset_is_not(fake: Fake, client: AsyncClient) -> None:
    await client.create_session(temperature=0.0, top_k=0)
    sent = fake.service.requests[-1]
    assert isinstance(sent, pb.CreateSessionRequest)
    assert sent.sampling.HasField("temperature")
    assert sent.sampling.HasField("top_k")
    assert not sent.sampling.HasField("seed")


async def test_names_that_do_not_exist_fail_before_the_call(fake: Fake, client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="prose"):
        await client.create_session(chat_format="prose")
    with pytest.raises(TypeError, match="warmth"):
        await client.create_session(warmth=1)  # type: ignore[call-arg]
    assert not fake.service.requests


async def test_session_is_a_handle_for_what_exists(client: AsyncClient) -> None:
    await client.create_session("alice")
    assert (await client.session("alice")).id == "alice"
    with pytest.raises(NotFoundError) as failed:
        await client.session("bob")
    assert failed.value.reason == "SESSION_NOT_FOUND"


async def test_lists_page_by_themselves(fake: Fake, client: AsyncClient) -> None:
    for number in range(5):
        session = await client.create_session(f"s-{number}")
        await session.checkpoint(f"c-{number}")
    fake.service.requests.clear()
    assert [s.session_id async for s in client.list_sessions(page_size=2)] == [f"s-{n}" for n in range(5)]
    assert len(fake.service.requests) == 3
    assert [c.checkpoint_id async for c in client.list_checkpoints(page_size=2)] == [
        f"c-{n}" for n in range(5)
    ]
    assert [c.checkpoint_id async for c in client.list_checkpoints("s-3")] == ["c-3"]


async def test_a_list_left_early_reads_no_further_page(fake: Fake, client: AsyncClient) -> None:
    for number in range(5):
        await client.create_session(f"s-{number}")
    fake.service.requests.clear()
    async for _ in client.list_sessions(page_size=2):
        break
    assert len(fake.service.requests) == 1


async def test_delete_session(fake: Fake, client: AsyncClient) -> None:
    await client.create_session("alice")
    await client.delete_session("alice")
    await client.delete_session("alice")
    assert not fake.service.sessions


async def test_checkpoints_are_read_and_deleted_by_id_or_by_value(client: AsyncClient) -> None:
    session = await client.create_session("alice")
    first = await session.checkpoint(labels={"mood": "calm"})
    second = await session.checkpoint("second")
    read = await client.get_checkpoint(first.checkpoint_id)
    assert read == first
    assert read.labels == {"mood": "calm"}
    assert read.usage is None
    assert first.usage is not None
    assert first.usage.pages_written == 2
    await client.delete_checkpoint(first)
    await client.delete_checkpoint(second.checkpoint_id)
    assert [c async for c in client.list_checkpoints()] == []
    with pytest.raises(NotFoundError):
        await client.get_checkpoint("second")


async def test_restore_makes_a_session_and_says_how(client: AsyncClient) -> None:
    session = await client.create_session("alice")
    checkpoint = await session.checkpoint()
    result = await client.restore(checkpoint, "again")
    assert result.session.id == "again"
    assert result.mode is RestoreMode.REBUILT
    assert result.rebuild_reason == "PAGE_CORRUPT"
    assert result.usage.prefilled_tokens == 9
    await result.session.append("more")
    assert (await client.restore(checkpoint.checkpoint_id)).session.id == "restored"


async def test_server_info(client: AsyncClient) -> None:
    info = await client.server_info()
    assert info.version == "9.9"
    assert info.model.vision


async def test_health(fake: Fake, client: AsyncClient) -> None:
    assert await client.health() is ServingStatus.SERVING
    await fake.serving(False)
    assert await client.health() is ServingStatus.NOT_SERVING


async def test_wait_until_serving(fake: Fake, client: AsyncClient) -> None:
    await client.wait_until_serving(10)
    await fake.serving(False)
    with pytest.raises(DeadlineError) as late:
        await client.wait_until_serving(0.05)
    assert isinstance(late.value, TimeoutError)


async def test_wait_until_serving_hears_when_the_server_serves(fake: Fake, client: AsyncClient) -> None:
    await fake.serving(False)
    waiting = asyncio.create_task(client.wait_until_serving(60))
    await fake.health.watched.wait()
    await fake.serving(True)
    await waiting


async def test_wait_until_serving_hears_of_a_server_that_ends(fake: Fake, client: AsyncClient) -> None:
    await fake.serving(False)
    waiting = asyncio.create_task(client.wait_until_serving(60))
    await fake.health.watched.wait()
    await fake.server.stop(None)
    with pytest.raises(UnavailableError):
        await waiting


async def test_no_server_is_unavailable() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError) as failed:
            await client.health()
    assert failed.value.reason == ""


async def test_a_closed_client_says_so(fake: Fake) -> None:
    client = AsyncClient(fake.address)
    assert repr(client) == f"<holdfast.AsyncClient {fake.address}>"
    await client.health()
    await client.close()
    await client.close()
    assert repr(client) == f"<holdfast.AsyncClient {fake.address} closed>"
    with pytest.raises(RuntimeError, match="closed"):
        await client.health()


def test_a_client_can_be_made_before_there_is_an_event_loop() -> None:
    client = AsyncClient()
    assert client.address == "127.0.0.1:50051"
