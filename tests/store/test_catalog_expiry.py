"""Times to live, pins, and what may be dropped: every implementation of the catalog."""

from __future__ import annotations

from dataclasses import replace

from holdfast_server.errors import Reason
from holdfast_server.store.catalog import Catalog, CheckpointRecord
from tests.store.helpers import append, checkpoint, digest, drained, grown, refused, session


async def ids(catalog: Catalog) -> list[str]:
    return [record.checkpoint_id for record in await catalog.list_checkpoints("ann")]


async def take(catalog: Catalog, *records: CheckpointRecord) -> None:
    for number, record in enumerate(records):
        await catalog.create_checkpoint(record, manifest=b"", pages=[digest(number)])


# Sessions


async def test_a_session_expires_a_while_after_its_last_use(catalog: Catalog) -> None:
    await catalog.create_session(replace(session(), ttl=500, expires=1_500))
    assert await catalog.expired_sessions(1_499) == []
    assert await catalog.expired_sessions(1_500) == [await catalog.get_session("ann", "s")]
    assert (await append(catalog)).expires == 3_500
    assert await catalog.expired_sessions(3_499) == []
    rolled = await catalog.reset("ann", "s", head=None, token_count=0, position=0, updated=9_000)
    assert rolled.expires == 9_500
    assert await catalog.get_session("ann", "s") == rolled


async def test_sessions_without_a_ttl_never_expire(catalog: Catalog) -> None:
    await grown(catalog, b"one")
    assert (await catalog.get_session("ann", "s")).expires is None
    assert await catalog.expired_sessions(1 << 62) == []


async def test_expired_sessions_come_oldest_first_in_slices_and_from_all_owners(catalog: Catalog) -> None:
    for name, owner, expires in [("a", "ann", 30), ("b", "bob", 10), ("c", "ann", 20), ("d", "ann", 99)]:
        await catalog.create_session(replace(session(name, owner), ttl=1, expires=expires))
    assert [r.session_id for r in await catalog.expired_sessions(30)] == ["b", "c", "a"]
    assert [r.session_id for r in await catalog.expired_sessions(30, limit=2)] == ["b", "c"]


async def test_updating_a_session_changes_what_is_named_and_no_more(catalog: Catalog) -> None:
    await grown(catalog, b"one")
    before = await catalog.get_session("ann", "s")
    labelled = await catalog.update_session("ann", "s", labels={"k": "v"}, now=7)
    assert labelled == replace(before, labels={"k": "v"})
    timed = await catalog.update_session("ann", "s", ttl=100, now=7)
    assert timed == replace(labelled, ttl=100, expires=107)
    assert await catalog.get_session("ann", "s") == timed
    assert await catalog.update_session("ann", "s", ttl=0, now=8) == labelled
    assert await catalog.get_session("ann", "s") == labelled


async def test_nobody_updates_what_is_not_theirs(catalog: Catalog) -> None:
    await grown(catalog, b"one")
    await take(catalog, checkpoint("c"))
    with refused(Reason.SESSION_NOT_FOUND):
        await catalog.update_session("bob", "s", ttl=1, now=0)
    with refused(Reason.CHECKPOINT_NOT_FOUND):
        await catalog.update_checkpoint("bob", "c", pinned=True)
    assert (await catalog.get_session("ann", "s")).ttl is None
    assert not (await catalog.get_checkpoint("ann", "c")).pinned


# Checkpoints


async def test_checkpoints_keep_their_times_and_marks(catalog: Catalog) -> None:
    made = replace(checkpoint("c"), expires=77, pinned=True, automatic=True)
    await take(catalog, made)
    kept = await catalog.get_checkpoint("ann", "c")
    assert (kept.expires, kept.pinned, kept.automatic) == (77, True, True)


async def test_expired_checkpoints_are_dropped_unless_pinned(catalog: Catalog) -> None:
    await take(
        catalog,
        replace(checkpoint("a"), expires=10),
        replace(checkpoint("b"), expires=10, pinned=True),
        replace(checkpoint("c"), expires=11),
        checkpoint("d"),
        replace(checkpoint("e", owner="bob"), expires=9),
    )
    assert await catalog.drop_expired(10, limit=1) == 1
    assert await catalog.drop_expired(10) == 1
    assert await catalog.drop_expired(10) == 0
    assert await ids(catalog) == ["b", "c", "d"]
    assert await catalog.list_checkpoints("bob") == []
    assert sorted(await drained(catalog)) == [digest(0), digest(4)]


async def test_the_oldest_automatic_checkpoints_make_room_first(catalog: Catalog) -> None:
    await take(
        catalog,
        replace(checkpoint("z"), automatic=True),
        replace(checkpoint("y"), automatic=True, pinned=True),
        checkpoint("x"),
        replace(checkpoint("w"), automatic=True),
    )
    assert await catalog.drop_automatic(limit=1) == 1
    assert await ids(catalog) == ["w", "x", "y"]
    assert await catalog.drop_automatic() == 1
    assert await catalog.drop_automatic() == 0
    assert await ids(catalog) == ["x", "y"]


async def test_updating_a_checkpoint_changes_what_is_named_and_no_more(catalog: Catalog) -> None:
    await take(catalog, checkpoint("c"))
    before = await catalog.get_checkpoint("ann", "c")
    pinned = await catalog.update_checkpoint("ann", "c", pinned=True)
    assert pinned == replace(before, pinned=True)
    timed = await catalog.update_checkpoint("ann", "c", labels={}, ttl=5)
    assert timed == replace(pinned, labels={}, expires=before.created + 5)
    assert await catalog.get_checkpoint("ann", "c") == timed
    assert await catalog.drop_expired(1 << 62) == 0
    loose = await catalog.update_checkpoint("ann", "c", ttl=0, pinned=False)
    assert loose == replace(before, labels={})
    assert await catalog.drop_expired(1 << 62) == 0
