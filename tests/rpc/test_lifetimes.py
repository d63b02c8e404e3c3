"""Times to live, pins, updates, and a store with a budget, over gRPC. Clocks are handed in: nobody sleeps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from holdfast.v1 import session_pb2
from holdfast_server.sessions.janitor import PATIENCE, Janitor
from tests import calls
from tests.calls import RAW, pb, raw, refusal
from tests.conftest import RunningServer, StartServer

HOUR = 3_600
DAY = 24 * HOUR


def seconds(count: int) -> Duration:
    return Duration(seconds=count)


async def tidy(server: RunningServer, later: int = 0) -> None:
    """One round of the janitor as if `later` seconds had passed, once nothing is in use."""
    while server.server.sessions.busy:
        await asyncio.sleep(0.005)
    await Janitor(server.server.sessions, clock=lambda: time.time_ns() + later * 10**9).tidy()


async def session_ids(stub: Any) -> list[str]:
    return [s.session_id for s in (await stub.ListSessions(pb.ListSessionsRequest())).sessions]


async def checkpoint_ids(stub: Any) -> list[str]:
    found = await stub.ListCheckpoints(pb.ListCheckpointsRequest())
    return [c.checkpoint_id for c in found.checkpoints]


async def update_session(stub: Any, *paths: str, **fields: Any) -> session_pb2.Session:
    request = pb.UpdateSessionRequest(session_id="a", update_mask=FieldMask(paths=paths), **fields)
    session: session_pb2.Session = (await stub.UpdateSession(request)).session
    return session


def lives(message: Any) -> float:
    """Seconds from the last use or the creation to the end."""
    start = message.update_time if hasattr(message, "update_time") else message.create_time
    return float(message.expire_time.ToNanoseconds() - start.ToNanoseconds()) / 1e9


# Sessions


async def test_a_session_expires_after_its_last_use(server: RunningServer) -> None:
    made = await calls.create(server.stub, chat_format=RAW, ttl=seconds(HOUR))
    assert lives(made) == HOUR
    assert made.ttl == seconds(HOUR)
    await calls.create(server.stub, "forever")
    used = (await calls.append(server.stub, raw("hello"))).session
    assert lives(used) == HOUR
    assert used.expire_time.ToNanoseconds() > made.expire_time.ToNanoseconds()
    await tidy(server, HOUR - 60)
    assert await session_ids(server.stub) == ["a", "forever"]
    await tidy(server, HOUR)
    assert await session_ids(server.stub) == ["forever"]
    assert (await refusal(calls.generate(server.stub)))[1] == "SESSION_NOT_FOUND"
    again = await calls.create(server.stub, chat_format=RAW)
    assert (again.revision, again.HasField("expire_time")) == (0, False)


async def test_a_generation_is_a_use(server: RunningServer) -> None:
    await calls.create(server.stub, chat_format=RAW, ttl=seconds(HOUR))
    await calls.append(server.stub, raw("hello"))
    _, _, finish = await calls.generate(server.stub)
    assert lives(finish.session) == HOUR


async def test_a_session_in_use_is_left_alone(server: RunningServer) -> None:
    await calls.create(server.stub, chat_format=RAW, ttl=seconds(HOUR))
    sessions = server.server.sessions
    async with sessions.registry.use("default", "a"):
        await tidy(server, DAY)
        assert await session_ids(server.stub) == ["a"]
    await tidy(server, DAY)
    assert await session_ids(server.stub) == []


async def test_a_session_used_meanwhile_is_left_alone(server: RunningServer) -> None:
    await calls.create(server.stub, chat_format=RAW, ttl=seconds(HOUR))
    expired = time.time_ns() - 1
    assert not await server.server.sessions.expire("default", "a", expired)
    assert await session_ids(server.stub) == ["a"]


async def test_a_session_of_another_model_expires_too(start_server: StartServer) -> None:
    first = await start_server("llama")
    await calls.create(first.stub, chat_format=RAW, ttl=seconds(HOUR))
    await first.server.drain(0)
    other = await start_server("llama", projector=False)
    assert (await refusal(calls.generate(other.stub)))[1] == "MODEL_MISMATCH"
    await tidy(other, DAY)
    assert await session_ids(other.stub) == []


async def test_update_session_by_mask(server: RunningServer) -> None:
    made = await calls.create(server.stub, chat_format=RAW, labels={"old": "1"}, ttl=seconds(HOUR))
    labelled = await update_session(server.stub, "labels", labels={"new": "2"}, ttl=seconds(DAY))
    assert dict(labelled.labels) == {"new": "2"}
    assert labelled.expire_time == made.expire_time
    timed = await update_session(server.stub, ttl=seconds(DAY))  # no mask: what is set
    assert dict(timed.labels) == {"new": "2"}
    assert timed.ttl == seconds(DAY)
    assert timed.expire_time.ToNanoseconds() > made.expire_time.ToNanoseconds() + 22 * HOUR * 10**9
    assert (await calls.append(server.stub, raw("x"))).session.ttl == seconds(DAY)
    assert not (await update_session(server.stub, "ttl")).HasField("expire_time")
    cleared = await update_session(server.stub, "*", ttl=seconds(HOUR))
    assert (dict(cleared.labels), cleared.ttl) == ({}, seconds(HOUR))
    reply = await server.stub.GetSession(pb.GetSessionRequest(session_id="a"))
    assert (dict(reply.session.labels), reply.session.ttl) == ({}, seconds(HOUR))


@pytest.mark.parametrize(
    "duration",
    [Duration(), Duration(nanos=999_999_999), Duration(seconds=-5), Duration(seconds=11 * 366 * DAY),
     Duration(seconds=1, nanos=-1), Duration(seconds=2**62)],
)  # fmt: skip
async def test_times_to_live_have_bounds(server: RunningServer, duration: Duration) -> None:
    await calls.create(server.stub, "whole", chat_format=RAW, ttl=seconds(1))
    await calls.create(server.stub, "b", chat_format=RAW, ttl=seconds(10 * 365 * DAY))
    for call in (
        calls.create(server.stub, chat_format=RAW, ttl=duration),
        calls.checkpoint(server.stub, "b", ttl=duration),
        server.stub.UpdateSession(pb.UpdateSessionRequest(session_id="b", ttl=duration)),
        server.stub.UpdateCheckpoint(pb.UpdateCheckpointRequest(checkpoint_id="c", ttl=duration)),
    ):
        code, reason, error = await refusal(call)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert calls.field(error) == "ttl"


async def test_updates_of_what_is_not_there_and_of_what_cannot_change(server: RunningServer) -> None:
    assert (await refusal(update_session(server.stub, "ttl")))[1] == "SESSION_NOT_FOUND"
    absent = pb.UpdateCheckpointRequest(checkpoint_id="c", pinned=True)
    assert (await refusal(server.stub.UpdateCheckpoint(absent)))[1] == "CHECKPOINT_NOT_FOUND"
    for path in ("revision", "pinned", "labels.old"):
        _, reason, error = await refusal(update_session(server.stub, path))
        assert (reason, calls.field(error)) == ("INVALID_FIELD", "update_mask")


# Checkpoints


async def test_checkpoints_expire_by_age_unless_pinned(server: RunningServer) -> None:
    await calls.create(server.stub, chat_format=RAW)
    await calls.append(server.stub, raw("hello there"))
    made = (await calls.checkpoint(server.stub, checkpoint_id="aged", ttl=seconds(HOUR))).checkpoint
    assert lives(made) == HOUR
    kept = await calls.checkpoint(server.stub, checkpoint_id="pinned", ttl=seconds(HOUR), pinned=True)
    assert kept.checkpoint.pinned
    await calls.checkpoint(server.stub, checkpoint_id="plain")
    await tidy(server, HOUR - 60)
    assert await checkpoint_ids(server.stub) == ["aged", "pinned", "plain"]
    await tidy(server, HOUR)
    assert await checkpoint_ids(server.stub) == ["pinned", "plain"]
    restored = await calls.restore(server.stub, checkpoint_id="pinned")
    assert (restored.rebuild_reason, restored.usage.prefilled_tokens) == ("", 0)
    loose = pb.UpdateCheckpointRequest(checkpoint_id="pinned", update_mask=FieldMask(paths=["pinned"]))
    assert not (await server.stub.UpdateCheckpoint(loose)).checkpoint.pinned
    await tidy(server, HOUR)
    assert await checkpoint_ids(server.stub) == ["plain"]


# The janitor's rounds


async def test_rounds_are_put_off_while_somebody_generates_but_not_for_ever(server: RunningServer) -> None:
    sessions = server.server.sessions
    janitor = Janitor(sessions)
    await calls.create(server.stub, chat_format=RAW)
    assert janitor._is_time()
    async with sessions.registry.use("default", "a") as live, live.generation():
        assert [janitor._is_time() for _ in range(PATIENCE + 1)] == [False] * PATIENCE + [True]
    assert janitor._is_time()


# A store with a budget


async def test_a_full_store_is_an_answer(start_server: StartServer) -> None:
    server = await start_server(store_bytes=20_000)
    await calls.create(server.stub, chat_format=RAW)
    await calls.append(server.stub, raw(calls.png(1, (32, 32))), raw("kelp"))
    _, before, _ = await calls.generate(server.stub)
    large = calls.png(2, (120, 120))
    code, reason, _ = await refusal(calls.append(server.stub, raw(large)))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
    _, after, finish = await calls.generate(server.stub)
    assert (len(before) > 0, len(after) > 0, finish.session.revision) == (True, True, 3)
    assert (await calls.append(server.stub, raw("text is no blob"))).session.revision == 4
