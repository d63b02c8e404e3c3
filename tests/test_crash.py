"""kill -9: nothing acknowledged is lost, and what comes back goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import grpc

from holdfast.v1 import checkpoint_pb2
from models import tiny
from tests.calls import RAW, append, checkpoint, create, generate, image, pb, png, raw, restore, text
from tests.processes import ServerProcess, running

KILLS = 12


async def test_a_killed_server_restores_a_picture_session_exactly(models_dir: Path, tmp_path: Path) -> None:
    model = tiny.make("llama", models_dir)
    async with running(model, tmp_path) as server, server.stub() as stub:
        await create(stub)
        await append(stub, text("what is in this picture?"), image(png(5)))
        await generate(stub)
        await checkpoint(stub)
        _, twin, _ = await generate(stub)
        server.kill()
    async with running(model, tmp_path) as server, server.stub() as stub:
        reply = await restore(stub)
        assert reply.mode == checkpoint_pb2.RESTORE_MODE_RESTORED
        assert (reply.usage.prefilled_tokens, reply.usage.media_encoded) == (0, 0)
        assert (await generate(stub, "b"))[1] == twin


async def test_no_acknowledged_append_is_lost_doubled_or_reordered(models_dir: Path, tmp_path: Path) -> None:
    """Writers append numbered text; an oracle outside the server notes what was acknowledged."""
    model = tiny.make("llama", models_dir)
    chance = random.Random(7)
    acknowledged: dict[str, int] = {}
    attempted: dict[str, int] = {}
    for _ in range(KILLS):
        async with running(model, tmp_path / "data") as server, server.stub() as stub:
            for name in ("a", "b", "c"):
                await compare(stub, name, acknowledged, attempted)
            writers = [
                asyncio.create_task(write(stub, name, acknowledged, attempted)) for name in ("a", "b", "c")
            ]
            await wait_for_writes(acknowledged, chance.randrange(1, 25))
            server.kill()
            await asyncio.gather(*writers)
    assert sum(acknowledged.values()) > KILLS


async def wait_for_writes(acknowledged: dict[str, int], more: int) -> None:
    """Returns as soon as `more` further appends are acknowledged, in the middle of others."""
    goal = sum(acknowledged.values()) + more
    while sum(acknowledged.values()) < goal:
        await asyncio.sleep(0)


async def write(stub: Any, name: str, acknowledged: dict[str, int], attempted: dict[str, int]) -> None:
    """Appends one token after the other until the server is gone."""
    try:
        while attempted[name] < 1500:
            attempted[name] += 1
            await append(stub, raw("x"), session_id=name)
            acknowledged[name] += 1
    except grpc.aio.AioRpcError as error:
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def compare(stub: Any, name: str, acknowledged: dict[str, int], attempted: dict[str, int]) -> None:
    """Every acknowledged entry is there, and at most the one in flight besides."""
    if name not in acknowledged:
        await create(stub, name, chat_format=RAW)
        acknowledged[name] = attempted[name] = 0
        return
    session = (await stub.GetSession(pb.GetSessionRequest(session_id=name))).session
    assert acknowledged[name] <= session.revision <= attempted[name]
    assert session.token_count == session.revision
    acknowledged[name] = attempted[name] = session.revision


async def test_a_generation_that_was_killed_leaves_no_half_of_itself(
    models_dir: Path, tmp_path: Path
) -> None:
    model = tiny.make("llama", models_dir)
    async with running(model, tmp_path) as server, server.stub() as stub:
        await create(stub)
        await append(stub, text("hello"))
        call = stub.Generate(pb.GenerateRequest(session_id="a"))
        await call.read()
        server.kill()
    async with running(model, tmp_path) as server, server.stub() as stub:
        session = (await stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
        assert session.revision == 1
        await generate(stub)


def test_the_data_directory_is_free_again_after_a_kill(models_dir: Path, tmp_path: Path) -> None:
    from tests.processes import command

    for _ in range(2):
        ServerProcess(command(tiny.make("llama", models_dir), tmp_path)).kill()
