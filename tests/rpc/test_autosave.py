"""Sessions that save themselves: after a turn, when evicted, when the server goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdfast.v1 import checkpoint_pb2
from holdfast_server.sessions import autosave
from models import tiny
from tests.calls import RAW, append, create, generate, image, pb, png, raw, restore, text
from tests.conftest import RunningServer, StartServer
from tests.processes import running


async def automatic(server: RunningServer, session_id: str = "a") -> list[checkpoint_pb2.Checkpoint]:
    """What the server saved by itself, oldest first, once nothing is being saved any more."""
    while server.server.sessions.busy:
        await asyncio.sleep(0.005)
    request = pb.ListCheckpointsRequest(session_id=session_id, include_automatic=True)
    reply = await server.stub.ListCheckpoints(request)
    return sorted(reply.checkpoints, key=lambda c: c.revision)


async def test_every_turn_is_saved_and_the_newest_are_kept(start_server: StartServer) -> None:
    server = await start_server(autosave="turn", autosave_keep=2)
    await create(server.stub)
    for number in range(4):
        await append(server.stub, text(f"turn {number}"))
        await generate(server.stub)
        await automatic(server)
    saved = await automatic(server)
    assert [c.revision for c in saved] == [6, 8]
    hidden = await server.stub.ListCheckpoints(pb.ListCheckpointsRequest(session_id="a"))
    assert not hidden.checkpoints
    reply = await restore(server.stub, "b", saved[-1].checkpoint_id)
    assert (reply.mode, reply.usage.prefilled_tokens) == (checkpoint_pb2.RESTORE_MODE_RESTORED, 0)


async def test_a_killed_server_prefills_nothing_of_saved_turns(
    models_dir: Path, tmp_path: Path, start_server: StartServer
) -> None:
    model = tiny.make("llama", models_dir)
    async with running(model, tmp_path / "data") as server, server.stub() as stub:
        await create(stub)
        await append(stub, text("what is it? " * 20), image(png()))
        before = (await generate(stub))[2].session
        request = pb.ListCheckpointsRequest(include_automatic=True)
        while not (await stub.ListCheckpoints(request)).checkpoints:
            await asyncio.sleep(0.01)
        server.kill()
    after = await start_server(data_dir=tmp_path / "data")
    await append(after.stub, text("and now?"))
    usage = (await generate(after.stub))[2].usage
    assert usage.restored_tokens == before.token_count - 1
    assert (usage.media_encoded, usage.prefilled_tokens < 40) == (0, True)


@pytest.mark.parametrize("mode", ["turn", "idle", "evict"])
async def test_what_is_evicted_comes_back_without_prefill(start_server: StartServer, mode: str) -> None:
    server = await start_server(autosave=mode, parallel=2)
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        await create(server.stub, name, chat_format=RAW)
        await append(server.stub, raw(f"{name}: a session of its own"), session_id=name)
        await generate(server.stub, name)
    for name in names * 2:
        _, _, finish = await generate(server.stub, name)
        usage = finish.usage
        assert (usage.prefilled_tokens, usage.cached_tokens) == (0, 0)
        assert usage.restored_tokens == usage.prompt_tokens - 1


async def test_a_session_that_comes_back_while_it_is_written_waits_for_its_pages(
    start_server: StartServer,
) -> None:
    server = await start_server(autosave="evict", parallel=1)
    for name in ("a", "b"):
        await create(server.stub, name, chat_format=RAW)
        await append(server.stub, raw(f"{name}: some text" * 20), session_id=name)
        await generate(server.stub, name)
    for _ in range(5):
        for _, _, finish in await asyncio.gather(generate(server.stub, "a"), generate(server.stub, "b")):
            assert finish.usage.prefilled_tokens == 0


async def test_an_idle_session_is_saved(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autosave, "IDLE_SECONDS", 0.0)
    server = await start_server(autosave="idle")
    await create(server.stub)
    await append(server.stub, text("hello"))
    await generate(server.stub)
    assert [c.revision for c in await automatic(server)] == [2]


@pytest.mark.parametrize("mode", ["turn", "idle", "evict"])
async def test_a_drained_server_leaves_everything_saved(
    start_server: StartServer, tmp_path: Path, mode: str
) -> None:
    before = await start_server(autosave=mode, data_dir=tmp_path / "d")
    await create(before.stub)
    await append(before.stub, text("hello " * 100))
    first = (await generate(before.stub))[2].session
    await before.server.drain(5)
    after = await start_server(data_dir=tmp_path / "d")
    usage = (await generate(after.stub))[2].usage
    assert usage.restored_tokens == first.token_count - 1


async def test_a_deleted_session_takes_its_automatic_checkpoints_along(start_server: StartServer) -> None:
    server = await start_server(autosave="turn")
    await create(server.stub)
    await append(server.stub, text("hello"))
    await generate(server.stub)
    assert await automatic(server)
    await server.stub.DeleteSession(pb.DeleteSessionRequest(session_id="a"))
    assert not await automatic(server)
    await server.server.sessions.store.collect()
    assert not [path for path in (server.data_dir / "blobs").rglob("*") if path.is_file()]


async def test_off_is_off(start_server: StartServer) -> None:
    server = await start_server(autosave="off", parallel=1)
    for name in ("a", "b"):
        await create(server.stub, name)
        await append(server.stub, text("hello"), session_id=name)
        await generate(server.stub, name)
    assert not await automatic(server, "")
