"""Checkpoint and Restore over gRPC: exact, incremental, verified, honest."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from holdfast.v1 import checkpoint_pb2
from tests.calls import (
    RAW,
    append,
    checkpoint,
    create,
    generate,
    image,
    pb,
    png,
    raw,
    refusal,
    restore,
    roll_back,
    text,
)
from tests.conftest import RunningServer, StartServer

RESTORED = checkpoint_pb2.RESTORE_MODE_RESTORED
REBUILT = checkpoint_pb2.RESTORE_MODE_REBUILT


async def fill(stub: object, session_id: str = "a") -> None:
    """A chat with a picture in it and one answer."""
    await create(stub, session_id)
    await append(stub, text("what is in this picture?"), image(png()), session_id=session_id)
    await generate(stub, session_id)
    await append(stub, text("and what else? " * 30), session_id=session_id)


async def test_a_restored_session_goes_on_as_its_twin(server: RunningServer) -> None:
    await fill(server.stub)
    taken = await checkpoint(server.stub)
    _, twin, twin_finish = await generate(server.stub)
    reply = await restore(server.stub)
    assert (reply.mode, reply.rebuild_reason, reply.usage.prefilled_tokens) == (RESTORED, "", 0)
    assert reply.usage.restored_tokens == taken.checkpoint.token_count - 1
    assert reply.usage.media_encoded == 0
    _, again, finish = await generate(server.stub, "b")
    assert again == twin
    assert finish.usage.prefilled_tokens == twin_finish.usage.prefilled_tokens
    assert finish.usage.media_encoded == 0


async def test_a_checkpoint_after_a_restart_is_restored(start_server: StartServer, tmp_path: Path) -> None:
    before = await start_server(data_dir=tmp_path / "d")
    await fill(before.stub)
    await checkpoint(before.stub)
    _, twin, _ = await generate(before.stub)
    await before.server.drain(0)
    after = await start_server(data_dir=tmp_path / "d")
    reply = await restore(after.stub)
    assert (reply.mode, reply.usage.prefilled_tokens) == (RESTORED, 0)
    assert (await generate(after.stub, "b"))[1] == twin


async def test_a_session_comes_back_by_itself_from_its_newest_checkpoint(
    start_server: StartServer, tmp_path: Path
) -> None:
    before = await start_server(data_dir=tmp_path / "d")
    await fill(before.stub)
    taken = await checkpoint(before.stub)
    await append(before.stub, text("one more thing"))
    await before.server.drain(0)
    after = await start_server(data_dir=tmp_path / "d")
    _, _, finish = await generate(after.stub)
    usage = finish.usage
    assert usage.restored_tokens == taken.checkpoint.token_count - 1
    assert usage.prefilled_tokens == usage.prompt_tokens - usage.restored_tokens - 1 < 60
    assert usage.media_encoded == 0


async def test_an_unchanged_session_costs_no_bytes(server: RunningServer) -> None:
    await fill(server.stub)
    first = await checkpoint(server.stub)
    assert first.usage.pages_written > 0
    second = await checkpoint(server.stub, checkpoint_id="c2")
    usage = second.usage
    assert (usage.pages_written, usage.stored_bytes, usage.raw_bytes) == (0, 0, 0)
    assert second.checkpoint.page_count == first.checkpoint.page_count


async def test_a_checkpoint_writes_only_what_is_new(server: RunningServer) -> None:
    await create(server.stub, chat_format=RAW)
    await append(server.stub, raw("x" * 1000))
    first = await checkpoint(server.stub)
    await append(server.stub, raw("y" * 10))
    second = await checkpoint(server.stub, checkpoint_id="c2")
    assert (second.usage.pages_written, first.usage.pages_written) == (1, 4)
    assert second.usage.raw_bytes * 50 < first.usage.raw_bytes
    reply = await restore(server.stub, checkpoint_id="c2")
    assert (reply.mode, reply.usage.restored_tokens) == (RESTORED, 1009)


async def test_a_fork_of_a_restored_session_shares_its_pages(server: RunningServer) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    await restore(server.stub)
    again = await checkpoint(server.stub, "b", "c2")
    assert (again.usage.pages_written, again.usage.stored_bytes) == (0, 0)


async def test_a_rollback_forgets_what_came_after(server: RunningServer) -> None:
    await fill(server.stub)
    taken = await checkpoint(server.stub)
    _, first, _ = await generate(server.stub)
    await append(server.stub, text("forget this"))
    reply = await roll_back(server.stub)
    assert (reply.mode, reply.usage.prefilled_tokens) == (RESTORED, 0)
    assert reply.session.revision == taken.checkpoint.revision
    assert reply.session.token_count == taken.checkpoint.token_count
    assert (await generate(server.stub))[1] == first


async def test_a_rollback_to_anothers_checkpoint_is_refused(server: RunningServer) -> None:
    await fill(server.stub)
    await fill(server.stub, "other")
    await checkpoint(server.stub, "other", "theirs")
    code, why, _ = await refusal(roll_back(server.stub, "a", "theirs"))
    assert (code, why) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWN_CHECKPOINT")


async def test_a_raw_session_that_ends_in_a_picture_restores_exactly(server: RunningServer) -> None:
    await create(server.stub, chat_format=RAW)
    await append(server.stub, raw("see "), raw(png(3)))
    await checkpoint(server.stub)
    _, twin, _ = await generate(server.stub)
    reply = await restore(server.stub)
    assert (reply.mode, reply.usage.prefilled_tokens) == (RESTORED, 0)
    assert (await generate(server.stub, "b"))[1] == twin


async def test_an_empty_session_can_be_checkpointed(server: RunningServer) -> None:
    await create(server.stub)
    taken = await checkpoint(server.stub)
    assert (taken.checkpoint.revision, taken.checkpoint.page_count) == (0, 0)
    reply = await restore(server.stub)
    assert (reply.mode, reply.session.token_count) == (RESTORED, 0)
    await append(server.stub, text("hello"), session_id="b")
    await generate(server.stub, "b")


async def test_a_checkpoint_outlives_its_session(server: RunningServer) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    _, twin, _ = await generate(server.stub)
    await server.stub.DeleteSession(pb.DeleteSessionRequest(session_id="a"))
    reply = await restore(server.stub, "a")
    assert reply.mode == RESTORED
    assert (await generate(server.stub))[1] == twin


async def test_deleting_the_last_checkpoint_deletes_its_pages(server: RunningServer) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    await checkpoint(server.stub, checkpoint_id="c2")
    blobs = server.data_dir / "blobs"

    def count() -> int:
        return sum(path.is_file() for path in blobs.rglob("*"))

    full = count()
    await server.stub.DeleteCheckpoint(pb.DeleteCheckpointRequest(checkpoint_id="c"))
    await server.server.sessions.store.collect()
    assert count() == full
    for _ in range(2):
        await server.stub.DeleteCheckpoint(pb.DeleteCheckpointRequest(checkpoint_id="c2"))
    await server.server.sessions.store.collect()
    assert count() == 1  # the session's picture
    assert (await refusal(restore(server.stub)))[1] == "CHECKPOINT_NOT_FOUND"


def pages(data_dir: Path) -> list[Path]:
    """The page files, largest first; the picture is the smallest blob here."""
    blobs = sorted(
        (p for p in (data_dir / "blobs").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    return blobs[:0:-1]


def flip(path: Path) -> None:
    """Flips one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.chmod(0o600)
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    """Loses a file's last byte."""
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "why"),
    [(flip, "PAGE_CORRUPT"), (cut_short, "PAGE_CORRUPT"), (Path.unlink, "PAGE_MISSING")],
)
async def test_a_damaged_page_is_rebuilt_from_the_journal(
    server: RunningServer, damage: object, why: str
) -> None:
    await fill(server.stub)
    taken = await checkpoint(server.stub)
    _, twin, _ = await generate(server.stub)
    await server.stub.DeleteSession(pb.DeleteSessionRequest(session_id="a"))
    damage(pages(server.data_dir)[0])  # type: ignore[operator]
    reply = await restore(server.stub)
    assert (reply.mode, reply.rebuild_reason) == (REBUILT, why)
    assert reply.usage.prefilled_tokens == taken.checkpoint.token_count - 1
    assert (reply.usage.restored_tokens, reply.usage.media_encoded) == (0, 1)
    assert (await generate(server.stub, "b"))[1] == twin
    # The repaired state can be checkpointed and restored again.
    await checkpoint(server.stub, "b", "repaired")
    assert (await restore(server.stub, "b2", "repaired")).mode == RESTORED


async def test_pages_of_other_weights_are_not_used(start_server: StartServer, tmp_path: Path) -> None:
    before = await start_server("llama", data_dir=tmp_path / "d")
    await fill(before.stub)
    taken = await checkpoint(before.stub)
    await before.server.drain(0)
    after = await start_server("llama-q8_0", data_dir=tmp_path / "d")
    reply = await restore(after.stub)
    assert (reply.mode, reply.rebuild_reason) == (REBUILT, "KEY_MISMATCH")
    assert reply.usage.prefilled_tokens == taken.checkpoint.token_count - 1
    await generate(after.stub, "b")


async def test_another_model_hears_the_conversation_anew(start_server: StartServer, tmp_path: Path) -> None:
    before = await start_server(data_dir=tmp_path / "d")
    await create(before.stub)
    await append(before.stub, text("hello there"))
    await generate(before.stub)
    await append(before.stub, text("and what else?"))
    await checkpoint(before.stub)
    await before.server.drain(0)
    # Without its projector it is another model: token ids and pictures mean something else.
    after = await start_server(data_dir=tmp_path / "d", projector=False)
    assert (await refusal(generate(after.stub)))[1] == "MODEL_MISMATCH"
    reply = await restore(after.stub)
    assert (reply.mode, reply.rebuild_reason) == (REBUILT, "MODEL_CHANGED")
    assert reply.usage.prefilled_tokens == reply.session.token_count - 1
    assert reply.session.revision == 3
    await append(after.stub, text("go on"), session_id="b")
    await generate(after.stub, "b")
    assert (await checkpoint(after.stub, "b", "own")).checkpoint.token_count > 0


async def test_another_model_that_cannot_see_says_so(start_server: StartServer, tmp_path: Path) -> None:
    before = await start_server(data_dir=tmp_path / "d")
    await fill(before.stub)
    await checkpoint(before.stub)
    await before.server.drain(0)
    after = await start_server(data_dir=tmp_path / "d", projector=False)
    code, why, _ = await refusal(restore(after.stub))
    assert (code, why) == (grpc.StatusCode.FAILED_PRECONDITION, "MODALITY_NOT_SUPPORTED")
    gone = await refusal(after.stub.GetSession(pb.GetSessionRequest(session_id="b")))
    assert gone[1] == "SESSION_NOT_FOUND"


async def test_a_strict_server_restores_exactly_or_not_at_all(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server(data_dir=tmp_path / "d", strict_restore=True)
    await fill(server.stub)
    await checkpoint(server.stub)
    assert (await restore(server.stub)).mode == RESTORED
    await generate(server.stub)
    before = (await server.stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
    flip(pages(server.data_dir)[0])
    for call in (restore(server.stub, "d"), roll_back(server.stub)):
        code, why, _ = await refusal(call)
        assert (code, why) == (grpc.StatusCode.FAILED_PRECONDITION, "REBUILD_REFUSED")
    assert (await refusal(server.stub.GetSession(pb.GetSessionRequest(session_id="d"))))[
        1
    ] == "SESSION_NOT_FOUND"
    after = (await server.stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
    assert (after.revision, after.token_count) == (before.revision, before.token_count)
    assert (await generate(server.stub))[1]


async def test_restores_run_beside_each_other_and_beside_generations(server: RunningServer) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    _, twin, _ = await generate(server.stub)
    replies = await asyncio.gather(*(restore(server.stub, f"r{number}") for number in range(3)))
    assert {reply.mode for reply in replies} == {RESTORED}
    results = await asyncio.gather(*(generate(server.stub, f"r{number}") for number in range(3)))
    assert all(len(tokens) == len(twin) for _, tokens, _ in results)


async def test_checkpoints_are_listed_in_pages(server: RunningServer) -> None:
    await create(server.stub)
    for number in range(5):
        await checkpoint(server.stub, checkpoint_id=f"c{number}", labels={"n": str(number)})
    first = await server.stub.ListCheckpoints(pb.ListCheckpointsRequest(page_size=3))
    rest = await server.stub.ListCheckpoints(
        pb.ListCheckpointsRequest(page_size=3, page_token=first.next_page_token)
    )
    found = [*first.checkpoints, *rest.checkpoints]
    assert [c.checkpoint_id for c in found] == [f"c{number}" for number in range(5)]
    assert rest.next_page_token == ""
    read = await server.stub.GetCheckpoint(pb.GetCheckpointRequest(checkpoint_id="c3"))
    assert dict(read.checkpoint.labels) == {"n": "3"}


async def test_pages_of_a_deleted_checkpoint_are_written_again(server: RunningServer) -> None:
    await fill(server.stub)
    first = await checkpoint(server.stub)
    await server.stub.DeleteCheckpoint(pb.DeleteCheckpointRequest(checkpoint_id="c"))
    await server.server.sessions.store.collect()
    second = await checkpoint(server.stub, checkpoint_id="c2")
    assert second.usage.pages_written == first.usage.pages_written
    reply = await restore(server.stub, checkpoint_id="c2")
    assert (reply.mode, reply.usage.prefilled_tokens) == (RESTORED, 0)
