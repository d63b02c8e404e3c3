"""Export and import over gRPC: portable, resumable, and nothing believed."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast.v1 import checkpoint_pb2, transfer_pb2
from holdfast_server.sessions.uploads import MAX_UPLOADS
from tests.calls import (
    RAW,
    append,
    checkpoint,
    create,
    generate,
    image,
    info,
    pb,
    png,
    raw,
    refusal,
    restore,
    text,
)
from tests.conftest import RunningServer, StartServer

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
RESTORED = checkpoint_pb2.RESTORE_MODE_RESTORED
REBUILT = checkpoint_pb2.RESTORE_MODE_REBUILT
FRAME = 1 << 20


async def export(stub: Any, checkpoint_id: str = "c", offset: int = 0) -> bytes:
    """The exported file from `offset` on; every frame is where it says, and small enough."""
    data, last = bytearray(), None
    request = transfer_pb2.ExportCheckpointRequest(checkpoint_id=checkpoint_id, offset=offset)
    async for frame in stub.ExportCheckpoint(request):
        assert last is None, "nothing comes after the last frame"
        assert frame.offset == offset + len(data)
        assert len(frame.data) <= FRAME
        data += frame.data
        last = frame if frame.digest else None
    assert last is not None
    assert last.total_bytes == offset + len(data)
    if not offset:
        assert last.digest == hashlib.sha256(data).digest()
    return bytes(data)


def requests(
    data: bytes, *, upload: str = "", name: str = "", start: int = 0, complete: bool = True, size: int = FRAME
) -> Iterable[transfer_pb2.ImportCheckpointRequest]:
    """The messages of one call."""
    for offset in range(start, max(len(data), start + 1), size):
        yield transfer_pb2.ImportCheckpointRequest(
            upload_id=upload if offset == start else "",
            checkpoint_id=name if offset == start else "",
            offset=offset,
            data=data[offset : offset + size],
            complete=complete and offset + size >= len(data),
        )


async def take_in(stub: Any, data: bytes, **options: Any) -> transfer_pb2.ImportCheckpointResponse:
    """Imports a file."""

    async def messages() -> AsyncIterator[transfer_pb2.ImportCheckpointRequest]:
        for message in requests(data, **options):
            yield message

    reply: transfer_pb2.ImportCheckpointResponse = await stub.ImportCheckpoint(messages())
    return reply


async def fill(stub: Any, session_id: str = "a") -> None:
    """A chat with a picture in it and one answer."""
    await create(stub, session_id)
    await append(stub, text("what is in this picture?"), image(png()), session_id=session_id)
    await generate(stub, session_id)
    await append(stub, text("and what else? " * 30), session_id=session_id)


@pytest.fixture
async def other(start_server: StartServer, tmp_path: Path) -> RunningServer:
    """Another server of the same model: its own data, its own owner's key."""
    return await start_server(data_dir=tmp_path / "other")


async def test_a_checkpoint_goes_on_on_another_server_as_its_twin(
    server: RunningServer, other: RunningServer
) -> None:
    await fill(server.stub)
    taken = await checkpoint(server.stub, labels={"tide": "low"})
    data = await export(server.stub)
    _, twin, _ = await generate(server.stub)
    reply = await take_in(other.stub, data)
    assert (reply.received_bytes, reply.pages_imported) == (len(data), True)
    arrived = reply.checkpoint
    for field in ("checkpoint_id", "session_id", "revision", "token_count", "position", "raw_bytes"):
        assert getattr(arrived, field) == getattr(taken.checkpoint, field), field
    assert dict(arrived.labels) == {"tide": "low"}
    assert arrived.create_time == taken.checkpoint.create_time
    restored = await restore(other.stub)
    assert (restored.mode, restored.usage.prefilled_tokens) == (RESTORED, 0)
    assert restored.usage.restored_tokens == taken.checkpoint.token_count - 1
    _, again, finish = await generate(other.stub, "b")
    assert again == twin
    assert finish.usage.media_encoded == 0
    assert await export(other.stub) == data


async def test_pages_that_end_in_a_picture_bring_their_logits(
    server: RunningServer, other: RunningServer
) -> None:
    await create(server.stub, chat_format=RAW)
    await append(server.stub, raw("see "), raw(png(3)))
    await checkpoint(server.stub)
    _, twin, _ = await generate(server.stub)
    await server.stub.DeleteSession(pb.DeleteSessionRequest(session_id="a"))
    await take_in(other.stub, await export(server.stub))
    reply = await restore(other.stub)
    assert (reply.mode, reply.usage.prefilled_tokens) == (RESTORED, 0)
    assert (await generate(other.stub, "b"))[1] == twin


@pytest.mark.parametrize("words", [[], ["x"], ["xy"]])
async def test_the_smallest_checkpoints_travel_too(
    server: RunningServer, other: RunningServer, words: list[str]
) -> None:
    await create(server.stub, chat_format=RAW)
    for word in words:
        await append(server.stub, raw(word))
    await checkpoint(server.stub)
    reply = await take_in(other.stub, await export(server.stub))
    assert reply.pages_imported
    restored = await restore(other.stub)
    assert (restored.mode, restored.usage.prefilled_tokens) == (RESTORED, 0)
    await append(other.stub, raw("more"), session_id="b")
    await generate(other.stub, "b")


async def test_an_export_goes_on_where_it_was_interrupted(server: RunningServer) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    data = await export(server.stub)
    for offset in (0, 1, 15, 16, 1000, len(data) // 2, FRAME, len(data) - 1, len(data)):
        if offset <= len(data):
            assert await export(server.stub, offset=offset) == data[offset:], offset
    for offset in (-1, len(data) + 1):
        assert (await refusal(export(server.stub, offset=offset)))[:2] == (INVALID, "INVALID_FIELD")
    assert (await refusal(export(server.stub, "none")))[1] == "CHECKPOINT_NOT_FOUND"
    assert (await refusal(export(server.stub, "../c")))[1] == "INVALID_FIELD"


async def test_frames_of_a_large_export_follow_each_other(server: RunningServer) -> None:
    await create(server.stub, chat_format=RAW)
    await append(server.stub, raw("x" * 2000))
    await checkpoint(server.stub)
    data = await export(server.stub)
    assert len(data) > 2 * FRAME, "the frames' cutting is not tested by less"
    for offset in (FRAME - 1, FRAME, FRAME + 1, 2 * FRAME):
        assert await export(server.stub, offset=offset) == data[offset:]


async def test_an_import_goes_on_where_it_was_interrupted(
    server: RunningServer, other: RunningServer
) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    data = await export(server.stub)
    half = len(data) // 2
    reply = await take_in(other.stub, data[:half], upload="u", complete=False, size=5000)
    assert (reply.received_bytes, reply.HasField("checkpoint")) == (half, False)
    assert (await take_in(other.stub, b"", upload="u", complete=False)).received_bytes == half
    gap = refusal(take_in(other.stub, data, upload="u", start=half + 1))
    code, why, error = await gap
    assert (code, why, info(error).metadata["received_bytes"]) == (INVALID, "INVALID_FIELD", str(half))
    done = await take_in(other.stub, data, upload="u", start=half - 100)
    assert (done.received_bytes, done.pages_imported) == (len(data), True)
    assert (await restore(other.stub)).mode == RESTORED
    assert (await take_in(other.stub, b"", upload="u", complete=False)).received_bytes == 0


async def test_a_broken_call_keeps_what_it_brought(server: RunningServer, other: RunningServer) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    data = await export(server.stub)
    call = other.stub.ImportCheckpoint()
    for message in requests(data[:3000], upload="u", complete=False, size=1000):
        await call.write(message)
    call.cancel()
    held = (await take_in(other.stub, b"", upload="u", complete=False)).received_bytes
    assert held in (0, 1000, 2000, 3000)
    assert (await take_in(other.stub, data, upload="u", start=held)).pages_imported


async def test_the_last_call_takes_an_upload_over(server: RunningServer) -> None:
    first = server.stub.ImportCheckpoint()
    await first.write(transfer_pb2.ImportCheckpointRequest(upload_id="u", data=b"x" * 10))
    held = 0
    while held != 10:
        held = (await take_in(server.stub, b"", upload="u", complete=False)).received_bytes
    await first.write(transfer_pb2.ImportCheckpointRequest(offset=10, data=b"y" * 10))
    await first.done_writing()
    assert (await refusal(first))[1] == "IMPORT_REFUSED"
    assert (await take_in(server.stub, b"", upload="u", complete=False)).received_bytes == 10


async def test_the_number_of_unfinished_uploads_is_bounded(server: RunningServer) -> None:
    for number in range(MAX_UPLOADS + 1):
        await take_in(server.stub, b"begun", upload=f"u{number}", complete=False)
    held = [
        (await take_in(server.stub, b"", upload=f"u{number}", complete=False)).received_bytes
        for number in range(MAX_UPLOADS, 0, -1)
    ]
    assert held == [5] * MAX_UPLOADS
    assert (await take_in(server.stub, b"", upload="u0", complete=False)).received_bytes == 0


async def test_uploads_that_are_all_in_use_keep_others_out(server: RunningServer) -> None:
    calls = [server.stub.ImportCheckpoint() for _ in range(MAX_UPLOADS)]
    for number, call in enumerate(calls):
        await call.write(transfer_pb2.ImportCheckpointRequest(upload_id=f"u{number}", data=b"begun"))
        held = 0
        while not held:
            held = (await take_in(server.stub, b"", upload=f"u{number}", complete=False)).received_bytes
    assert (await refusal(take_in(server.stub, b"x", upload="late")))[1] == "QUEUE_FULL"
    for call in calls:
        call.cancel()


async def test_another_compatibility_key_leaves_the_pages_out(
    server: RunningServer, start_server: StartServer, tmp_path: Path
) -> None:
    await fill(server.stub)
    taken = await checkpoint(server.stub)
    quantized = await start_server("llama-q8_0", data_dir=tmp_path / "q8")
    reply = await take_in(quantized.stub, await export(server.stub))
    assert not reply.pages_imported
    assert (reply.checkpoint.page_count, reply.checkpoint.compatibility_key) == (0, "")
    restored = await restore(quantized.stub)
    assert (restored.mode, restored.rebuild_reason) == (REBUILT, "KEY_MISMATCH")
    assert restored.usage.prefilled_tokens == taken.checkpoint.token_count - 1
    assert restored.usage.media_encoded == 1
    await generate(quantized.stub, "b")
    # Without pages it can still go home, where its state is recomputed.
    back = await take_in(server.stub, await export(quantized.stub), name="back")
    assert not back.pages_imported
    assert (await restore(server.stub, "home", "back")).rebuild_reason == "KEY_MISMATCH"


async def test_a_server_that_cannot_hold_it_refuses_it(
    server: RunningServer, start_server: StartServer, tmp_path: Path
) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    data = await export(server.stub)
    blind = await start_server(data_dir=tmp_path / "blind", projector=False)
    assert (await refusal(take_in(blind.stub, data)))[:2] == (PRECONDITION, "MODEL_MISMATCH")
    small = await start_server(data_dir=tmp_path / "small", ctx_size=256)
    assert (await refusal(take_in(small.stub, data)))[:2] == (PRECONDITION, "CONTEXT_WINDOW_EXCEEDED")


async def test_an_id_is_taken_once_and_bytes_are_stored_once(
    server: RunningServer, other: RunningServer
) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    data = await export(server.stub)
    await take_in(other.stub, data)
    blobs = sorted((other.data_dir / "blobs").rglob("*"))
    for name in ("", "c"):
        code, why, _ = await refusal(take_in(other.stub, data, name=name))
        assert (code, why) == (grpc.StatusCode.ALREADY_EXISTS, "CHECKPOINT_EXISTS")
    await take_in(other.stub, data, name="again")
    assert sorted((other.data_dir / "blobs").rglob("*")) == blobs
    assert (await restore(other.stub, "b", "again")).mode == RESTORED
    for bad in ("../c", "C", "x" * 64):
        assert (await refusal(take_in(other.stub, data, name=bad)))[1] == "INVALID_FIELD"
        assert (await refusal(take_in(other.stub, data, upload=bad)))[1] == "INVALID_FIELD"


async def test_a_damaged_page_is_not_exported(server: RunningServer) -> None:
    await fill(server.stub)
    await checkpoint(server.stub)
    largest = max((server.data_dir / "blobs").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    largest.unlink()
    code, why, _ = await refusal(export(server.stub))
    assert (code, why) == (grpc.StatusCode.DATA_LOSS, "CHECKPOINT_CORRUPT")


async def test_calls_that_are_none(server: RunningServer) -> None:
    assert (await refusal(take_in(server.stub, b"")))[1] == "IMPORT_REFUSED"
    assert (await refusal(take_in(server.stub, b"not a checkpoint " * 99)))[1] == "IMPORT_REFUSED"
    huge = refusal(take_in(server.stub, bytes(FRAME + 1), size=FRAME + 1))
    assert (await huge)[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PAYLOAD_TOO_LARGE")
    silent = server.stub.ImportCheckpoint()
    await silent.done_writing()
    assert (await refusal(silent))[1] == "INVALID_FIELD"
    negative = server.stub.ImportCheckpoint(
        iter([transfer_pb2.ImportCheckpointRequest(offset=-1, data=b"x")])
    )
    assert (await refusal(negative))[1] == "INVALID_FIELD"
