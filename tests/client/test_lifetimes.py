"""Times to live and pins as the client passes them along."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import AsyncClient, AsyncSession, Client, _convert
from holdfast.v1 import checkpoint_pb2, session_pb2
from holdfast.v1 import session_service_pb2 as pb
from tests.client.conftest import Fake

HOUR = timedelta(hours=1)
MASK = FieldMask


async def test_create_and_checkpoint_pass_their_terms(client: AsyncClient, fake: Fake) -> None:
    session = await client.create_session("alice", ttl=HOUR)
    await session.checkpoint("c", ttl=HOUR / 2, pinned=True)
    await session.checkpoint("d")
    created, taken, plain = fake.service.requests
    assert isinstance(created, pb.CreateSessionRequest)
    assert isinstance(taken, pb.CheckpointRequest)
    assert isinstance(plain, pb.CheckpointRequest)
    assert created.ttl == Duration(seconds=3600)
    assert (taken.ttl, taken.pinned) == (Duration(seconds=1800), True)
    assert (plain.HasField("ttl"), plain.pinned) == (False, False)


@pytest.mark.parametrize(
    ("given", "request_fields"),
    [
        ({"labels": {"a": "b"}}, {"labels": {"a": "b"}, "update_mask": MASK(paths=["labels"])}),
        ({"labels": {}}, {"update_mask": MASK(paths=["labels"])}),
        ({"ttl": HOUR}, {"ttl": Duration(seconds=3600), "update_mask": MASK(paths=["ttl"])}),
        ({"forever": True}, {"update_mask": MASK(paths=["ttl"])}),
    ],
)
async def test_update_names_exactly_what_is_given(
    session: AsyncSession, client: AsyncClient, fake: Fake, given: Any, request_fields: Any
) -> None:
    await session.update(**given)
    await client.update_checkpoint("c", **given)
    assert fake.service.requests[-2] == pb.UpdateSessionRequest(session_id="alice", **request_fields)
    assert fake.service.requests[-1] == pb.UpdateCheckpointRequest(checkpoint_id="c", **request_fields)


async def test_an_update_does_not_accept_what_others_wrote(session: AsyncSession, fake: Fake) -> None:
    fake.service.sessions["alice"].revision = 7
    info = await session.update(labels={"a": "b"}, ttl=HOUR)
    assert (info.revision, dict(info.labels), info.ttl) == (0, {"a": "b"}, HOUR)
    assert session.info is info
    assert (await session.update()).revision == 7  # nothing to change: it reads


async def test_a_pin_is_set_and_taken_away(client: AsyncClient, fake: Fake) -> None:
    assert (await client.update_checkpoint("c", pinned=True)).pinned
    assert not (await client.update_checkpoint("c", pinned=False)).pinned
    last = fake.service.requests[-1]
    assert last == pb.UpdateCheckpointRequest(checkpoint_id="c", update_mask=MASK(paths=["pinned"]))


async def test_a_ttl_that_is_none_is_refused(session: AsyncSession, client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="not both"):
        await session.update(ttl=HOUR, forever=True)
    with pytest.raises(ValueError, match="not both"):
        await client.update_checkpoint("c", ttl=HOUR, forever=True)


def test_the_synchronous_face(sync_client: Client, fake_elsewhere: Fake) -> None:
    session = sync_client.create_session("alice", ttl=HOUR)
    assert session.update(ttl=2 * HOUR).ttl == 2 * HOUR
    assert session.checkpoint("c", ttl=HOUR, pinned=True).checkpoint_id == "c"
    assert sync_client.update_checkpoint("c", pinned=True).pinned
    created = fake_elsewhere.service.requests[0]
    assert isinstance(created, pb.CreateSessionRequest)
    assert created.ttl == Duration(seconds=3600)


def test_descriptions_tell_when_things_end() -> None:
    end = Timestamp(seconds=1_800_000_000)
    session = _convert.session_info(session_pb2.Session(ttl=Duration(seconds=60), expire_time=end))
    assert (session.ttl, session.expire_time) == (
        timedelta(minutes=1),
        datetime.fromtimestamp(1_800_000_000, UTC),
    )
    checkpoint = _convert.checkpoint_info(checkpoint_pb2.Checkpoint(expire_time=end, pinned=True))
    assert (checkpoint.expire_time, checkpoint.pinned) == (session.expire_time, True)
    bare = _convert.session_info(session_pb2.Session())
    assert (bare.ttl, bare.expire_time) == (None, None)
