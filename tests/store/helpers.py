"""Short ways to make records, and to expect refusals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.store.catalog import Catalog, CheckpointRecord, SessionRecord


def session(session_id: str = "s", owner: str = "ann", head: int | None = None) -> SessionRecord:
    labels = {"colour": "blue", "naïve": "☃"}
    return SessionRecord(owner, session_id, head, 0, 0, 0, '{"seed": 7}', labels, "tiny", 1_000, 1_000)


def checkpoint(
    checkpoint_id: str = "c",
    head: int | None = None,
    owner: str = "ann",
    session_id: str = "s",
    key: str = "key",
) -> CheckpointRecord:
    return CheckpointRecord(
        owner, checkpoint_id, session_id, head, 0, 12, 13, {"a": "b"}, "tiny", key, 2, 1 << 33, 99, 2_000
    )


async def append(
    catalog: Catalog,
    payload: bytes = b"entry",
    *,
    session_id: str = "s",
    owner: str = "ann",
    expected: int | None = None,
    media: Sequence[str] = (),
) -> SessionRecord:
    return await catalog.append(
        owner,
        session_id,
        expected_revision=expected,
        payload=payload,
        media=media,
        token_count=5,
        position=6,
        updated=3_000,
    )


async def grown(catalog: Catalog, *payloads: bytes, session_id: str = "s") -> list[int]:
    """A new session with these entries: the head after each."""
    await catalog.create_session(session(session_id))
    heads = [(await append(catalog, payload, session_id=session_id)).head for payload in payloads]
    return [head for head in heads if head is not None]


async def drained(catalog: Catalog, limit: int = 256) -> list[str]:
    """All slices of a collection: the digests they return."""
    digests: list[str] = []
    more = True
    while more:
        part = await catalog.unreferenced(limit=limit)
        assert len(part.digests) <= limit
        digests += part.digests
        more = part.more
    return digests


@contextmanager
def refused(reason: Reason) -> Iterator[pytest.ExceptionInfo[HoldfastError]]:
    with pytest.raises(HoldfastError) as caught:
        yield caught
    assert caught.value.reason is reason


def digest(number: int) -> str:
    return f"{number:064x}"
