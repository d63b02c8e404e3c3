"""What every catalog promises about checkpoints and collection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast_server.errors import Reason
from holdfast_server.store.catalog import Catalog
from holdfast_server.store.damage import JournalCorrupt
from tests.store.helpers import append, checkpoint, digest, drained, grown, refused, session


async def test_checkpoint_comes_back_with_its_revision_and_manifest(catalog: Catalog) -> None:
    heads = await grown(catalog, b"one", b"two")
    given = checkpoint(head=heads[1])
    made = await catalog.create_checkpoint(given, manifest=b"opaque\0", pages=[digest(1), digest(2)])
    assert made == replace(given, revision=2, row=made.row)
    assert made.row > 0
    assert await catalog.get_checkpoint("ann", "c") == made
    assert await catalog.manifest(made) == b"opaque\0"


async def test_checkpoint_id_is_taken_once_per_owner(catalog: Catalog) -> None:
    await catalog.create_checkpoint(checkpoint(), manifest=b"", pages=[])
    with refused(Reason.CHECKPOINT_EXISTS):
        await catalog.create_checkpoint(checkpoint(), manifest=b"", pages=[])
    await catalog.create_checkpoint(checkpoint(owner="bob"), manifest=b"", pages=[])


async def test_absent_checkpoint_is_not_found(catalog: Catalog) -> None:
    await catalog.create_checkpoint(checkpoint(owner="bob"), manifest=b"", pages=[])
    with refused(Reason.CHECKPOINT_NOT_FOUND):
        await catalog.get_checkpoint("ann", "c")
    assert not await catalog.delete_checkpoint("ann", "c")


async def test_a_record_does_not_load_a_later_checkpoints_manifest(catalog: Catalog) -> None:
    old = await catalog.create_checkpoint(checkpoint(), manifest=b"old", pages=[])
    assert await catalog.delete_checkpoint("ann", "c")
    new = await catalog.create_checkpoint(checkpoint(), manifest=b"new", pages=[])
    with refused(Reason.CHECKPOINT_NOT_FOUND):
        await catalog.manifest(old)
    assert await catalog.manifest(new) == b"new"


async def test_lists_page_by_id_and_filter_by_session(catalog: Catalog) -> None:
    for name, taken_of in (("c", "s"), ("a", "s"), ("b", "t"), ("d", "s")):
        await catalog.create_checkpoint(checkpoint(name, session_id=taken_of), manifest=b"", pages=[])
    await catalog.create_checkpoint(checkpoint("x", owner="bob"), manifest=b"", pages=[])
    everything = await catalog.list_checkpoints("ann")
    assert [record.checkpoint_id for record in everything] == ["a", "b", "c", "d"]
    page = await catalog.list_checkpoints("ann", session_id="s", after_id="a", limit=1)
    assert [record.checkpoint_id for record in page] == ["c"]


async def test_latest_checkpoint_is_the_deepest_on_the_path(catalog: Catalog) -> None:
    heads = await grown(catalog, b"one", b"two", b"three")
    await catalog.create_session(session("fork", head=heads[0]))
    fork = await append(catalog, b"other", session_id="fork")
    for name, head, key in (("root", heads[0], "k1"), ("mid", heads[1], "k2"), ("off", fork.head, "k1")):
        await catalog.create_checkpoint(checkpoint(name, head, key=key), manifest=b"", pages=[])

    async def latest(head: int | None, key: str | None = None) -> str | None:
        found = await catalog.latest_checkpoint("ann", head, compatibility_key=key)
        return None if found is None else found.checkpoint_id

    assert await latest(heads[2]) == "mid"
    assert await latest(heads[2], "k1") == "root"
    assert await latest(heads[2], "k3") is None
    assert await latest(heads[0]) == "root"
    assert await latest(fork.head) == "off"
    assert await latest(None) is None


async def test_latest_of_several_at_one_revision_is_the_newest(catalog: Catalog) -> None:
    heads = await grown(catalog, b"one")
    for name in ("b", "a"):
        await catalog.create_checkpoint(checkpoint(name, heads[0]), manifest=b"", pages=[])
    found = await catalog.latest_checkpoint("ann", heads[0])
    assert found is not None
    assert found.checkpoint_id == "a"


async def test_nothing_in_use_is_unreferenced(catalog: Catalog) -> None:
    await catalog.create_session(session())
    head = (await append(catalog, media=[digest(1), digest(1)])).head
    await catalog.create_checkpoint(checkpoint(head=head), manifest=b"", pages=[digest(2), digest(2)])
    assert await drained(catalog) == []
    known = await catalog.referenced([digest(1), digest(2), digest(3)])
    assert known == {digest(1), digest(2)}


async def test_a_deleted_sessions_entries_go_unless_a_checkpoint_keeps_them(catalog: Catalog) -> None:
    await catalog.create_session(session())
    kept = (await append(catalog, b"kept", media=[digest(1)])).head
    gone = (await append(catalog, b"gone", media=[digest(1), digest(2)])).head
    await catalog.create_checkpoint(checkpoint(head=kept), manifest=b"", pages=[])
    assert await catalog.delete_session("ann", "s")
    assert await drained(catalog) == [digest(2)]
    assert [entry.payload for entry in await catalog.journal("ann", kept)] == [b"kept"]
    with pytest.raises(JournalCorrupt):
        await catalog.journal("ann", gone)
    with refused(Reason.CHECKPOINT_NOT_FOUND):
        await catalog.create_session(session("again", head=gone))


async def test_rollback_lets_go_of_what_came_after(catalog: Catalog) -> None:
    heads = await grown(catalog, b"one", b"two", b"three")
    await catalog.reset("ann", "s", head=heads[0], token_count=1, position=1, updated=1)
    await drained(catalog)
    assert len(await catalog.journal("ann", heads[0])) == 1
    for head in heads[1:]:
        with pytest.raises(JournalCorrupt):
            await catalog.journal("ann", head)


async def test_a_fork_keeps_the_shared_past(catalog: Catalog) -> None:
    heads = await grown(catalog, b"one", b"two")
    await catalog.create_session(session("fork", head=heads[0]))
    await catalog.delete_session("ann", "s")
    await drained(catalog)
    assert len(await catalog.journal("ann", heads[0])) == 1
    await catalog.delete_session("ann", "fork")
    await drained(catalog)
    with pytest.raises(JournalCorrupt):
        await catalog.journal("ann", heads[0])


async def test_pages_go_with_the_last_checkpoint_that_refers_to_them(catalog: Catalog) -> None:
    await catalog.create_checkpoint(checkpoint("a"), manifest=b"", pages=[digest(1), digest(2)])
    await catalog.create_checkpoint(checkpoint("b"), manifest=b"", pages=[digest(2), digest(3)])
    await catalog.delete_checkpoint("ann", "a")
    assert await drained(catalog) == [digest(1)]
    await catalog.delete_checkpoint("ann", "b")
    assert sorted(await drained(catalog)) == [digest(2), digest(3)]


async def test_a_page_referred_to_again_before_collection_stays(catalog: Catalog) -> None:
    await catalog.create_checkpoint(checkpoint("a"), manifest=b"", pages=[digest(1)])
    await catalog.delete_checkpoint("ann", "a")
    await catalog.create_checkpoint(checkpoint("b"), manifest=b"", pages=[digest(1)])
    assert await drained(catalog) == []


async def test_slices_add_up_to_the_whole(catalog: Catalog) -> None:
    await catalog.create_session(session())
    for number in range(25):
        await append(catalog, media=[digest(2 * number), digest(2 * number + 1)])
    await catalog.delete_session("ann", "s")
    assert sorted(await drained(catalog, limit=7)) == [digest(number) for number in range(50)]
    assert await drained(catalog) == []
