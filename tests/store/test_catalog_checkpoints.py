"""What every catalog promises about checkpoints and collection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast_server.errors import Reason
from holdfast_server.store.catalog import Catalog, PrefixMatch
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


async def test_an_imported_checkpoint_brings_its_journal(catalog: Catalog) -> None:
    journal = [(b"one", [digest(1)]), (b"two", []), (b"three", [digest(1), digest(2)])]
    given = checkpoint(head=99)
    made = await catalog.import_checkpoint(given, journal=journal, manifest=b"m", pages=[digest(3)])
    assert made == replace(given, head=made.head, revision=3, row=made.row)
    entries = await catalog.journal("ann", made.head)
    assert [entry.payload for entry in entries] == [b"one", b"two", b"three"]
    assert await catalog.manifest(await catalog.get_checkpoint("ann", "c")) == b"m"
    assert await drained(catalog) == []
    await catalog.create_session(session(head=made.head))
    assert (await append(catalog, b"four")).revision == 4
    await catalog.delete_session("ann", "s")
    await catalog.delete_checkpoint("ann", "c")
    assert sorted(await drained(catalog)) == [digest(1), digest(2), digest(3)]


async def test_an_import_under_a_taken_id_leaves_nothing(catalog: Catalog) -> None:
    taken = await catalog.create_checkpoint(checkpoint(), manifest=b"", pages=[])
    with refused(Reason.CHECKPOINT_EXISTS):
        await catalog.import_checkpoint(
            checkpoint(), journal=[(b"one", [digest(1)])], manifest=b"", pages=[digest(2)]
        )
    assert await catalog.get_checkpoint("ann", "c") == taken
    assert await catalog.referenced([digest(1), digest(2)]) == set()
    empty = await catalog.import_checkpoint(checkpoint("empty"), journal=[], manifest=b"", pages=[])
    assert (empty.head, empty.revision) == (None, 0)


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


async def test_the_longest_stored_prefix_is_found(catalog: Catalog) -> None:
    first, second, third = digest(1), digest(2), digest(3)
    short = await catalog.create_checkpoint(
        checkpoint("short", key="k1"), manifest=b"", pages=[digest(7)], prefixes=[first]
    )
    long = await catalog.create_checkpoint(
        checkpoint("long", key="k2"),
        manifest=b"",
        pages=[digest(7), digest(8), digest(9)],
        prefixes=[first, second],
    )

    async def find(*prefixes: str, owner: str = "ann", key: str = "k2") -> PrefixMatch | None:
        return await catalog.find_prefix(owner, prefixes, compatibility_key=key)

    assert await find(first, second, third) == PrefixMatch(long, 1, 2)
    assert await find(first, third) == PrefixMatch(long, 0, 1)
    assert await find(first, second, key="k1") == PrefixMatch(short, 0, 1)
    assert await find(third) is None
    assert await find() is None
    assert await find(first, owner="bob") is None
    assert await find(first, key="k3") is None
    many = [digest(number) for number in range(100, 1200)]
    assert await find(first, *many) == PrefixMatch(long, 0, 1)
    await catalog.delete_checkpoint("ann", "long")
    assert await find(first, second) is None


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
