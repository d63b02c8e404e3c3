"""The client against the real server and a tiny model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from PIL import Image

import holdfast
from holdfast import (
    AsyncClient,
    Client,
    ContextWindowError,
    FinishReason,
    InvalidArgumentError,
    MediaError,
    NotFoundError,
    PreconditionError,
    Residency,
    RestoreMode,
    ServingStatus,
    StaleRevisionError,
)
from tests.conftest import RunningServer


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small JPEG."""
    path = tmp_path / "sea.jpg"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


async def test_a_picture_session_is_restored_and_goes_on_alike(server: RunningServer, picture: Path) -> None:
    async with AsyncClient(server.address) as client:
        session = await client.create_session(temperature=0.0, max_tokens=8)
        appended = await session.append(holdfast.system("Look."), "What is this?", picture)
        assert appended.prompt_tokens == session.info.token_count > 0
        first = await session.complete()
        assert first.token_ids
        checkpoint = await session.checkpoint(labels={"tide": "low"})
        assert checkpoint.usage is not None
        assert checkpoint.usage.pages_written > 0
        twin = await session.complete()
        restored = await client.restore(checkpoint)
        assert (restored.mode, restored.usage.prefilled_tokens) == (RestoreMode.RESTORED, 0)
        again = await restored.session.complete()
        assert again.token_ids == twin.token_ids
        assert again.finish.usage.prefilled_tokens == twin.finish.usage.prefilled_tokens
        back = await session.rollback(checkpoint)
        assert back.session.revision == checkpoint.revision
        assert (await session.complete()).token_ids == twin.token_ids


async def test_streaming_gives_the_text_piece_by_piece(server: RunningServer) -> None:
    async with AsyncClient(server.address) as client:
        session = await client.create_session()
        await session.append("Hello")
        generation = session.generate(max_tokens=6, seed=3)
        pieces = [piece async for piece in generation]
        assert "".join(pieces) == generation.text
        assert sum(len(piece.token_ids) for piece in pieces) == generation.finish.usage.generated_tokens
        assert generation.finish.reason in (FinishReason.MAX_TOKENS, FinishReason.END_OF_TURN)


async def test_a_generation_left_early_keeps_what_it_streamed(server: RunningServer) -> None:
    async with AsyncClient(server.address) as client:
        session = await client.create_session(chat_format="raw")
        await session.append("abc")
        tokens = session.info.token_count
        async for _ in session.generate(max_tokens=1000):
            break
        await session.append("def")  # the server has let go of the generation
        assert session.info.token_count > tokens
        assert (await session.refresh()).residency is Residency.RESIDENT


async def test_the_errors_of_the_real_server(server: RunningServer, picture: Path) -> None:
    async with AsyncClient(server.address) as client:
        session = await client.create_session("alice")
        with pytest.raises(holdfast.AlreadyExistsError):
            await client.create_session("alice")
        with pytest.raises(InvalidArgumentError) as bad_id:
            await client.create_session("../alice")
        assert bad_id.value.fields[0].field == "session_id"
        with pytest.raises(NotFoundError):
            await client.session("bob")
        with pytest.raises(NotFoundError):
            await client.restore("none")
        with pytest.raises(PreconditionError):
            await session.complete()
        with pytest.raises(MediaError):
            await session.append(b"no picture")
        with pytest.raises(InvalidArgumentError):
            await session.append()
        with pytest.raises(ContextWindowError):
            await session.append("word " * 10_000)
        await (await client.session("alice")).append("first")
        with pytest.raises(StaleRevisionError) as stale:
            await session.append("second")
        assert stale.value.current_revision == 1


async def test_lists_and_info(server: RunningServer) -> None:
    async with AsyncClient(server.address) as client:
        for number in range(3):
            session = await client.create_session(f"s-{number}")
            await session.append("x")
            await session.checkpoint(f"c-{number}")
        assert [s.session_id async for s in client.list_sessions(page_size=2)] == ["s-0", "s-1", "s-2"]
        assert [c.checkpoint_id async for c in client.list_checkpoints("s-1")] == ["c-1"]
        info = await client.server_info()
        assert info.model.vision
        assert info.limits.message_bytes == 64 * 1024 * 1024
        assert info.compatibility_key == (await client.get_checkpoint("c-0")).compatibility_key
        assert await client.health() is ServingStatus.SERVING


async def test_the_synchronous_face(server: RunningServer, picture: Path) -> None:
    def converse() -> str:
        with Client(server.address) as client:
            session = client.create_session()
            session.append("Look:", picture, Image.new("CMYK", (40, 30)))
            return "".join(session.generate(max_tokens=4, temperature=0.0))

    first, second = await asyncio.to_thread(converse), await asyncio.to_thread(converse)
    assert first == second
