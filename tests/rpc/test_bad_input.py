"""Bad input: each with its code and reason, and the server serves on."""

from __future__ import annotations

import asyncio
import re
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from holdfast.v1 import chunk_pb2, session_pb2
from holdfast_server.sessions.limits import Limits
from tests.calls import (
    RAW,
    append,
    checkpoint,
    create,
    field,
    generate,
    image,
    info,
    pb,
    png,
    raw,
    refusal,
    restore,
    roll_back,
    save,
    text,
)
from tests.conftest import RunningServer, StartServer

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
ABORTED = grpc.StatusCode.ABORTED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
LEAK = re.compile(r"0x[0-9a-f]{6,}|/[a-z]+/[a-z]+|\.py\b|\.gguf\b|Traceback")


@pytest.fixture
async def stub(server: RunningServer) -> AsyncIterator[Any]:
    """A server with a session "a" that answers before the test and after it."""
    await create(server.stub)
    await append(server.stub, text("hello"))
    yield server.stub
    await create(server.stub, "afterwards")
    await append(server.stub, text("still there?"), session_id="afterwards")
    assert len((await generate(server.stub, "afterwards"))[1]) == 12


async def refused(call: Any, code: grpc.StatusCode, reason: str) -> grpc.aio.AioRpcError:
    """Asserts code and reason, and that the text tells no secrets."""
    found, why, error = await refusal(call)
    assert (found, why) == (code, reason), error.details()
    assert not LEAK.search(error.details() or ""), error.details()
    return error


async def test_unknown_names(stub: Any) -> None:
    gone = "SESSION_NOT_FOUND"
    await refused(stub.GetSession(pb.GetSessionRequest(session_id="nope")), NOT_FOUND, gone)
    await refused(append(stub, text("x"), session_id="nope"), NOT_FOUND, gone)
    await refused(generate(stub, "nope"), NOT_FOUND, gone)
    await refused(checkpoint(stub, "nope"), NOT_FOUND, gone)
    await refused(restore(stub, "b", "nope"), NOT_FOUND, "CHECKPOINT_NOT_FOUND")
    await refused(roll_back(stub, "a", "nope"), NOT_FOUND, "CHECKPOINT_NOT_FOUND")
    missing = stub.GetCheckpoint(pb.GetCheckpointRequest(checkpoint_id="nope"))
    await refused(missing, NOT_FOUND, "CHECKPOINT_NOT_FOUND")
    await checkpoint(stub)
    await refused(roll_back(stub, "nope"), NOT_FOUND, gone)


@pytest.mark.parametrize("bad", ["../etc", "a/b", "A", "-a", "a" * 64, "a b", "é", ".", "a\n"])
async def test_ids_that_are_none(stub: Any, bad: str) -> None:
    calls = {
        "session_id": [
            create(stub, bad),
            stub.GetSession(pb.GetSessionRequest(session_id=bad)),
            stub.DeleteSession(pb.DeleteSessionRequest(session_id=bad)),
            append(stub, text("x"), session_id=bad),
            generate(stub, bad),
            checkpoint(stub, bad),
            stub.ListCheckpoints(pb.ListCheckpointsRequest(session_id=bad)),
        ],
        "checkpoint_id": [
            checkpoint(stub, "a", bad),
            stub.GetCheckpoint(pb.GetCheckpointRequest(checkpoint_id=bad)),
            stub.DeleteCheckpoint(pb.DeleteCheckpointRequest(checkpoint_id=bad)),
            restore(stub, "b", bad),
        ],
    }
    for name, attempts in calls.items():
        for attempt in attempts:
            assert field(await refused(attempt, INVALID, "INVALID_FIELD")) == name


async def test_ids_that_are_taken(stub: Any) -> None:
    exists = grpc.StatusCode.ALREADY_EXISTS
    await refused(create(stub, "a"), exists, "SESSION_EXISTS")
    await checkpoint(stub)
    await refused(checkpoint(stub), exists, "CHECKPOINT_EXISTS")
    await refused(restore(stub, "a"), exists, "SESSION_EXISTS")


async def test_nothing_to_append(stub: Any) -> None:
    await refused(append(stub), INVALID, "EMPTY_CHUNKS")
    await refused(append(stub, text("")), INVALID, "EMPTY_CHUNKS")
    await refused(append(stub, image(b"")), INVALID, "EMPTY_CHUNKS")
    await refused(append(stub, chunk_pb2.Chunk(role=chunk_pb2.ROLE_USER)), INVALID, "EMPTY_CHUNKS")
    await refused(append(stub, *[text("x")] * 257), INVALID, "INVALID_FIELD")


async def test_roles_where_they_do_not_belong(stub: Any) -> None:
    await refused(append(stub, raw("no role")), INVALID, "INVALID_FIELD")
    await refused(append(stub, chunk_pb2.Chunk(role=99, text="x")), INVALID, "INVALID_FIELD")  # type: ignore[arg-type]
    special = chunk_pb2.Chunk(role=chunk_pb2.ROLE_USER, text="x", parse_special=True)
    await refused(append(stub, special), INVALID, "INVALID_FIELD")
    await create(stub, "raw", chat_format=RAW)
    await refused(append(stub, text("role"), session_id="raw"), INVALID, "INVALID_FIELD")


def cmyk() -> bytes:
    return save(Image.new("CMYK", (20, 20), (10, 20, 30, 40)), "JPEG")


def deep() -> bytes:
    return save(Image.fromarray(np.full((9, 9), 40_000, np.uint16)))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(Image.new("RGB", (30, 10), "red"), "JPEG", exif=exif)


@pytest.mark.parametrize("good", [cmyk(), deep(), turned(), save(Image.new("LA", (8, 8))), png(1, (300, 3))])
async def test_unusual_pictures_are_welcome(stub: Any, good: bytes) -> None:
    await append(stub, image(good))
    await generate(stub)


def animated() -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return save(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def declared(width: int, height: int) -> bytes:
    """A PNG that says it is huge."""
    data = bytearray(save(Image.new("RGB", (1, 1))))
    struct.pack_into(">II", data, 16, width, height)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("bad", "code", "reason"),
    [
        (b"not a picture at all", INVALID, "UNSUPPORTED_MEDIA"),
        (b"\x89PNG\r\n\x1a\n", INVALID, "UNSUPPORTED_MEDIA"),
        (save(Image.new("RGB", (9, 9)), "GIF"), INVALID, "UNSUPPORTED_MEDIA"),
        (save(Image.new("RGB", (9, 9)), "BMP"), INVALID, "UNSUPPORTED_MEDIA"),
        (animated(), INVALID, "UNSUPPORTED_MEDIA"),
        (save(Image.new("RGB", (1, 1))), INVALID, "UNSUPPORTED_MEDIA"),
        (save(Image.new("RGB", (2, 900))), INVALID, "UNSUPPORTED_MEDIA"),
        (png(0, (64, 64))[:2000], INVALID, "MEDIA_UNREADABLE"),
        (save(Image.effect_noise((99, 99), 90), "JPEG")[:900], INVALID, "MEDIA_UNREADABLE"),
        (save(Image.new("RGB", (20_000, 300))), EXHAUSTED, "PAYLOAD_TOO_LARGE"),
        (declared(16_000, 16_000), EXHAUSTED, "PAYLOAD_TOO_LARGE"),
        (declared(2**31 - 1, 2**31 - 1), EXHAUSTED, "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_pictures_that_are_none(stub: Any, bad: bytes, code: grpc.StatusCode, reason: str) -> None:
    before = (await stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
    await refused(append(stub, text("look"), image(bad)), code, reason)
    after = (await stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
    assert (after.revision, after.token_count) == (before.revision, before.token_count)


async def test_a_picture_that_is_not_what_it_is_called(stub: Any) -> None:
    lying = chunk_pb2.Chunk(
        role=chunk_pb2.ROLE_USER, image=chunk_pb2.Media(data=png(), mime_type="image/jpeg")
    )
    await refused(append(stub, lying), INVALID, "UNSUPPORTED_MEDIA")


async def test_payloads_that_are_too_large(stub: Any) -> None:
    await refused(append(stub, image(b"\xff\xd8\xff" + bytes(21 * 2**20))), EXHAUSTED, "PAYLOAD_TOO_LARGE")
    await refused(append(stub, text("x" * (9 * 2**20))), EXHAUSTED, "PAYLOAD_TOO_LARGE")


async def test_a_picture_without_a_projector(start_server: StartServer) -> None:
    server = await start_server(projector=False)
    await create(server.stub)
    await refused(append(server.stub, image(png())), PRECONDITION, "MODALITY_NOT_SUPPORTED")
    await append(server.stub, text("words do"))
    await generate(server.stub)


async def test_a_template_format_without_a_template(start_server: StartServer) -> None:
    server = await start_server("llama-notemplate", projector=False)
    template = session_pb2.CHAT_FORMAT_TEMPLATE
    await refused(create(server.stub, chat_format=template), PRECONDITION, "NO_CHAT_TEMPLATE")
    assert (await create(server.stub)).chat_format == RAW


async def test_text_longer_than_the_context(stub: Any) -> None:
    error = await refused(append(stub, text("x" * 3000)), PRECONDITION, "CONTEXT_WINDOW_EXCEEDED")
    assert info(error).metadata["context_tokens"] == "2048"


async def test_a_stale_revision(stub: Any) -> None:
    calls = (
        append(stub, text("x"), expected_revision=0),
        generate(stub, expected_revision=7),
        checkpoint(stub, expected_revision=0),
    )
    for call in calls:
        error = await refused(call, ABORTED, "STALE_REVISION")
        assert info(error).metadata["current_revision"] == "1"
    await append(stub, text("x"), expected_revision=1)


async def test_generating_from_nothing(stub: Any) -> None:
    await create(stub, "empty")
    await refused(generate(stub, "empty"), PRECONDITION, "NOTHING_TO_GENERATE_FROM")


NAN, INF = float("nan"), float("inf")
BAD_NUMBERS: list[tuple[str, Any]] = [
    *(("max_tokens", value) for value in (0, -1, 2049, 2**31 - 1, -(2**31))),
    *(("temperature", value) for value in (-0.1, 10.1, NAN, INF)),
    *(("top_p", value) for value in (0.0, -1.0, 1.1, NAN)),
    *(("top_k", value) for value in (-1, 1001, 2**31 - 1)),
    *(("min_p", value) for value in (-0.1, 1.1, NAN)),
    *(("repeat_penalty", value) for value in (0.0, -1.0, 11.0, NAN, INF)),
    *(("frequency_penalty", value) for value in (-11.0, 11.0, NAN)),
    *(("presence_penalty", value) for value in (-11.0, 11.0, NAN)),
    *(("seed", value) for value in (-1, 2**32, 2**63 - 1)),
    ("stop", [""]),
    ("stop", ["x"] * 17),
    ("stop", ["x" * 257]),
]


@pytest.mark.parametrize(("name", "value"), BAD_NUMBERS)
async def test_sampling_out_of_bounds(stub: Any, name: str, value: Any) -> None:
    bad = session_pb2.SamplingParams(**{name: value})
    for call in (generate(stub, sampling=bad), create(stub, "b", sampling=bad)):
        assert field(await refused(call, INVALID, "INVALID_FIELD")) == f"sampling.{name}"


@pytest.mark.parametrize("extreme", [{"temperature": 10, "top_k": 1000, "min_p": 0}, {"repeat_penalty": 10}])
async def test_sampling_at_its_bounds(stub: Any, extreme: dict[str, Any]) -> None:
    wild = session_pb2.SamplingParams(
        max_tokens=2, seed=2**32 - 1, frequency_penalty=-10, presence_penalty=10, **extreme
    )
    await generate(stub, sampling=wild)


async def test_labels_and_pages_out_of_bounds(stub: Any) -> None:
    for labels in ({"": "x"}, {"k" * 64: ""}, {"k": "v" * 256}, {str(n): "" for n in range(65)}):
        await refused(create(stub, "b", labels=labels), INVALID, "INVALID_FIELD")
    for size in (-1, 1001):
        await refused(stub.ListSessions(pb.ListSessionsRequest(page_size=size)), INVALID, "INVALID_FIELD")
    await refused(stub.Restore(pb.RestoreRequest(checkpoint_id="c")), INVALID, "INVALID_FIELD")


async def test_two_writers_at_once(stub: Any) -> None:
    long = session_pb2.SamplingParams(temperature=0, max_tokens=1500)
    first = stub.Generate(pb.GenerateRequest(session_id="a", sampling=long))
    await first.read()
    await refused(generate(stub), ABORTED, "SESSION_BUSY")
    await refused(append(stub, text("x")), ABORTED, "SESSION_BUSY")
    await refused(checkpoint(stub), ABORTED, "SESSION_BUSY")
    await refused(stub.DeleteSession(pb.DeleteSessionRequest(session_id="a")), ABORTED, "SESSION_BUSY")
    session = (await stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
    assert session.state == session_pb2.SESSION_STATE_GENERATING
    first.cancel()


async def test_a_cancelled_generation_is_journalled_as_far_as_it_was_streamed(stub: Any) -> None:
    before = (await stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
    long = session_pb2.SamplingParams(temperature=0, max_tokens=1500)
    call = stub.Generate(pb.GenerateRequest(session_id="a", sampling=long))
    seen = []
    for _ in range(5):
        seen += list((await call.read()).delta.token_ids)
    call.cancel()
    session = before
    while session.revision == before.revision or session.state != session_pb2.SESSION_STATE_IDLE:
        await asyncio.sleep(0.01)
        session = (await stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
    assert session.revision == before.revision + 1
    # The prompt of the turn, and at least what was read; the rest was on its way when it was cancelled.
    assert session.token_count >= before.token_count + len(seen)
    assert session.token_count < before.token_count + 1500
    # Cache and journal agree: the session goes on as one restored from the journal alone.
    await checkpoint(stub)
    _, here, _ = await generate(stub)
    await restore(stub)
    assert (await generate(stub, "b"))[1] == here


async def test_the_number_of_sessions_is_bounded(start_server: StartServer) -> None:
    server = await start_server(limits=Limits(sessions=2))
    await create(server.stub, "a")
    await create(server.stub, "b")
    await refused(create(server.stub, "c"), EXHAUSTED, "SESSION_LIMIT")
