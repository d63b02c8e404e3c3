"""What every catalog promises about sessions and their journals."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.store.catalog import Catalog, FileStamp
from holdfast_server.store.damage import JournalCorrupt
from tests.store.helpers import append, checkpoint, grown, refused, session


async def test_session_comes_back_as_it_was_created(catalog: Catalog) -> None:
    await catalog.create_session(session())
    assert await catalog.get_session("ann", "s") == session()


async def test_an_id_is_taken_once_per_owner(catalog: Catalog) -> None:
    await catalog.create_session(session())
    with refused(Reason.SESSION_EXISTS):
        await catalog.create_session(session())
    await catalog.create_session(session(owner="bob"))


async def test_session_limit_counts_all_owners(catalog: Catalog) -> None:
    await catalog.create_session(session("a"), limit=2)
    await catalog.create_session(session("b", owner="bob"), limit=2)
    with refused(Reason.SESSION_LIMIT):
        await catalog.create_session(session("c"), limit=2)
    await catalog.delete_session("ann", "a")
    await catalog.create_session(session("c"), limit=2)


async def test_absent_session_is_not_found_by_any_method(catalog: Catalog) -> None:
    await catalog.create_session(session(owner="bob"))
    with refused(Reason.SESSION_NOT_FOUND):
        await catalog.get_session("ann", "s")
    with refused(Reason.SESSION_NOT_FOUND):
        await append(catalog)
    with refused(Reason.SESSION_NOT_FOUND):
        await catalog.reset("ann", "s", head=None, token_count=0, position=0, updated=0)
    assert not await catalog.delete_session("ann", "s")


async def test_lists_page_by_id(catalog: Catalog) -> None:
    for name in ("b", "a-1", "a", "a1", "z"):
        await catalog.create_session(session(name))
    await catalog.create_session(session("q", owner="bob"))
    first = await catalog.list_sessions("ann", limit=3)
    rest = await catalog.list_sessions("ann", after_id=first[-1].session_id, limit=3)
    assert [record.session_id for record in first + rest] == ["a", "a-1", "a1", "b", "z"]


async def test_append_moves_the_head_and_the_totals(catalog: Catalog) -> None:
    await catalog.create_session(session())
    record = await append(catalog, b"one", expected=0)
    assert (record.revision, record.token_count, record.position, record.updated) == (1, 5, 6, 3_000)
    assert record.created == 1_000
    assert await catalog.get_session("ann", "s") == record


async def test_stale_revision_appends_nothing_and_tells_the_current_one(catalog: Catalog) -> None:
    await grown(catalog, b"one", b"two")
    with refused(Reason.STALE_REVISION) as caught:
        await append(catalog, b"late", expected=1)
    assert caught.value.metadata == {"current_revision": "2"}
    head = (await catalog.get_session("ann", "s")).head
    assert [entry.payload for entry in await catalog.journal("ann", head)] == [b"one", b"two"]


async def test_of_concurrent_appends_at_one_revision_exactly_one_wins(catalog: Catalog) -> None:
    await catalog.create_session(session())
    tries = [append(catalog, bytes([n]), expected=0) for n in range(10)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    refusals = [outcome.reason for outcome in outcomes if isinstance(outcome, HoldfastError)]
    assert refusals == [Reason.STALE_REVISION] * 9
    assert (await catalog.get_session("ann", "s")).revision == 1


async def test_journal_is_root_first_and_linked(catalog: Catalog) -> None:
    heads = await grown(catalog, b"one", b"", b"three")
    entries = await catalog.journal("ann", heads[-1])
    assert [(entry.payload, entry.revision) for entry in entries] == [(b"one", 1), (b"", 2), (b"three", 3)]
    assert [entry.entry_id for entry in entries] == heads
    assert [entry.parent for entry in entries] == [None, *heads[:-1]]
    assert len({entry.chain for entry in entries}) == 3
    assert await catalog.journal("ann", heads[0]) == entries[:1]
    assert await catalog.journal("ann", None) == []


async def test_equal_journals_of_two_owners_have_other_chains(catalog: Catalog) -> None:
    chains = []
    for owner in ("ann", "bob"):
        await catalog.create_session(session(owner=owner))
        head = (await append(catalog, b"same", owner=owner)).head
        chains.append((await catalog.journal(owner, head))[0].chain)
    assert chains[0] != chains[1]


async def test_nobody_reads_or_takes_over_a_foreign_head(catalog: Catalog) -> None:
    heads = await grown(catalog, b"secret")
    await catalog.create_session(session(owner="bob"))
    with pytest.raises(JournalCorrupt):
        await catalog.journal("bob", heads[0])
    with refused(Reason.CHECKPOINT_NOT_FOUND):
        await catalog.create_session(session("t", owner="bob", head=heads[0]))
    with refused(Reason.CHECKPOINT_NOT_FOUND):
        await catalog.reset("bob", "s", head=heads[0], token_count=0, position=0, updated=0)
    with refused(Reason.SESSION_NOT_FOUND):
        await catalog.create_checkpoint(checkpoint(head=heads[0], owner="bob"), manifest=b"", pages=[])


async def test_fork_shares_the_past_and_parts_from_there(catalog: Catalog) -> None:
    heads = await grown(catalog, b"one", b"two")
    await catalog.create_session(session("fork", head=heads[0]))
    fork = await append(catalog, b"other", session_id="fork", expected=1)
    trunk = await catalog.journal("ann", heads[1])
    branch = await catalog.journal("ann", fork.head)
    assert [entry.payload for entry in trunk] == [b"one", b"two"]
    assert [entry.payload for entry in branch] == [b"one", b"other"]
    assert branch[0] == trunk[0]


async def test_rollback_sets_head_and_revision(catalog: Catalog) -> None:
    heads = await grown(catalog, b"one", b"two", b"three")
    record = await catalog.reset("ann", "s", head=heads[0], token_count=2, position=3, updated=9)
    assert (record.head, record.revision, record.token_count, record.position) == (heads[0], 1, 2, 3)
    assert await catalog.get_session("ann", "s") == record
    assert (await append(catalog, expected=1)).revision == 2


async def test_owner_key_is_made_once_per_owner(catalog: Catalog) -> None:
    keys = await asyncio.gather(*[catalog.owner_key("ann") for _ in range(5)])
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    assert await catalog.owner_key("bob") != keys[0]


async def test_file_digest_holds_for_exactly_one_stamp(catalog: Catalog) -> None:
    stamp = FileStamp("model.gguf", 10, 1_700_000_000_123_456_789, (1 << 64) - 1)
    assert await catalog.file_digest(stamp) is None
    await catalog.remember_file_digest(stamp, "d1")
    assert await catalog.file_digest(stamp) == "d1"
    touched = FileStamp(stamp.path, stamp.size, stamp.mtime_ns + 1, stamp.inode)
    assert await catalog.file_digest(touched) is None
    await catalog.remember_file_digest(touched, "d2")
    assert (await catalog.file_digest(touched), await catalog.file_digest(stamp)) == ("d2", None)
