"""The SQLite catalog: damage, failing disks, fencing, and long journals."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, insert

from holdfast_server.errors import HoldfastError, Reason, StartupError
from holdfast_server.store import schema
from holdfast_server.store.damage import JournalCorrupt, ManifestCorrupt
from holdfast_server.store.digest import keyed_bytes
from holdfast_server.store.sql_catalog import SqlCatalog
from tests.store.helpers import append, checkpoint, digest, drained, grown, refused, session


async def on_thread(sql: SqlCatalog, statement: str) -> None:
    """Run a statement behind the catalog's back, on its own connection."""

    def run(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    await sql._database.write(run)


# Damage


@pytest.mark.parametrize(
    "damage",
    [
        "update entries set payload = x'00' where revision = 2",
        "update entries set chain = zeroblob(32) where revision = 3",
        "update entries set revision = 7 where revision = 3",
        "update entries set parent = null where revision = 3",
        "update entries set parent = id where revision = 2",
        "update entries set parent = (select max(id) from entries) where revision = 1",
        "update owners set digest_key = zeroblob(32)",
        "delete from owners",
    ],
)
async def test_a_damaged_journal_is_never_returned(sql: SqlCatalog, damage: str) -> None:
    heads = await grown(sql, b"one", b"two", b"three")
    await on_thread(sql, damage)
    with pytest.raises(JournalCorrupt):
        await sql.journal("ann", heads[-1])


async def test_a_damaged_manifest_is_never_returned(sql: SqlCatalog) -> None:
    made = await sql.create_checkpoint(checkpoint(), manifest=b"opaque", pages=[])
    for bit in range(8 * 6):
        damaged = bytearray(b"opaque")
        damaged[bit // 8] ^= 1 << bit % 8
        await on_thread(sql, f"update checkpoints set manifest = x'{damaged.hex()}'")
        with pytest.raises(ManifestCorrupt):
            await sql.manifest(made)
    assert await sql.get_checkpoint("ann", "c") == made


# Fencing


async def test_the_second_opener_fences_off_the_first(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    old = await SqlCatalog.open(path)
    await grown(old, b"one")
    new = await SqlCatalog.open(path)
    assert (new.epoch, new.store_id) == (old.epoch + 1, old.store_id)
    writes: list[Callable[[SqlCatalog], object]] = [
        lambda c: append(c),
        lambda c: c.create_session(session("t")),
        lambda c: c.delete_session("ann", "s"),
        lambda c: c.reset("ann", "s", head=None, token_count=0, position=0, updated=0),
        lambda c: c.create_checkpoint(checkpoint(), manifest=b"", pages=[]),
        lambda c: c.delete_checkpoint("ann", "c"),
        lambda c: c.unreferenced(),
        lambda c: c.owner_key("zoe"),
    ]
    for write in writes:
        with refused(Reason.LEASE_LOST):
            await write(old)  # type: ignore[misc]
    assert (await new.get_session("ann", "s")).revision == 1
    assert (await append(new, expected=1)).revision == 2
    await old.close()
    await new.close()


# A disk that is full or fails


async def test_a_full_disk_refuses_writes_and_leaves_reads_working(sql: SqlCatalog) -> None:
    heads = await grown(sql, b"one")
    await on_thread(sql, "pragma max_page_count = 1")  # SQLite takes the present size instead
    with refused(Reason.STORE_FULL):
        await append(sql, bytes(1 << 20))
    assert len(await sql.journal("ann", heads[0])) == 1
    assert (await sql.get_session("ann", "s")).revision == 1
    await on_thread(sql, "pragma max_page_count = 1000000")
    assert (await append(sql, bytes(1 << 20), expected=1)).revision == 2


@contextmanager
def failing_writes(path: Path) -> Iterator[None]:
    """Nothing in this process can write beyond the end of the file: EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_after_a_failed_commit_the_connection_is_replaced(sql: SqlCatalog, tmp_path: Path) -> None:
    await grown(sql, b"one")
    before = sql._database._connection
    with failing_writes(tmp_path / "catalog.sqlite3-wal"):
        with refused(Reason.INTERNAL) as caught:
            await append(sql, bytes(100_000))
        assert str(tmp_path) not in caught.value.message
    record = await append(sql, b"two", expected=1)
    assert [entry.payload for entry in await sql.journal("ann", record.head)] == [b"one", b"two"]
    assert sql._database._connection is not before


async def test_a_commit_that_fails_is_acknowledged_to_nobody(
    sql: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grown(sql, b"one")

    def failing(_connection: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(sql._database._engine.dialect, "do_commit", failing)
        tries = [append(sql), append(sql), sql.create_session(session("t"))]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, HoldfastError)]
    assert reasons == [Reason.INTERNAL] * 3
    assert (await append(sql, expected=1)).revision == 2


async def test_damage_found_on_the_way_back_stops_the_catalog(sql: SqlCatalog, tmp_path: Path) -> None:
    await grown(sql, *[bytes(5_000)] * 20)
    sql._database._executor.submit(sql._database._discard).result()  # as after a failed commit
    path = tmp_path / "catalog.sqlite3"
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + bytes(8192) + whole[16384:])
    for _ in range(2):
        with refused(Reason.INTERNAL):
            await append(sql)
    path.write_bytes(whole)
    assert (await append(sql)).revision == 21


# The thread


async def test_one_refusal_in_a_group_leaves_the_others(sql: SqlCatalog) -> None:
    await sql.create_session(session())

    def half(connection: Connection) -> None:
        connection.execute(delete(schema.sessions))
        raise ZeroDivisionError

    held = threading.Event()
    blocked = asyncio.create_task(sql._database.read(lambda _: held.wait()))
    await asyncio.sleep(0)  # the thread is busy: what follows waits, and is committed together
    group = [
        asyncio.create_task(sql.create_session(session("a"))),
        asyncio.create_task(sql.create_session(session("a"))),
        asyncio.create_task(append(sql, expected=9)),
        asyncio.create_task(sql._database.write(half)),
        asyncio.create_task(append(sql, expected=0)),
    ]
    await asyncio.sleep(0)
    held.set()
    outcomes = await asyncio.gather(*group, return_exceptions=True)
    await blocked
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == [
        None,
        Reason.SESSION_EXISTS,
        Reason.STALE_REVISION,
        None,
        None,
    ]
    assert isinstance(outcomes[3], ZeroDivisionError)
    assert [record.session_id for record in await sql.list_sessions("ann")] == ["a", "s"]
    assert (await sql.get_session("ann", "s")).revision == 1


async def test_waiting_writes_share_one_commit(sql: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    await sql.create_session(session())
    commits: list[int] = []
    commit = sql._database._engine.dialect.do_commit

    def counting(connection: object) -> None:
        commits.append(1)
        commit(connection)  # type: ignore[arg-type]

    monkeypatch.setattr(sql._database._engine.dialect, "do_commit", counting)
    held = threading.Event()
    blocked = asyncio.create_task(sql._database.read(lambda _: held.wait()))
    await asyncio.sleep(0)
    appends = [asyncio.create_task(append(sql)) for _ in range(64)]
    await asyncio.sleep(0)
    held.set()
    records = await asyncio.gather(*appends)
    await blocked
    assert [record.revision for record in records] == list(range(1, 65))
    assert len(commits) == 2  # the read's, and one for 64 appends


async def test_a_cancelled_caller_does_not_stop_what_is_queued(sql: SqlCatalog) -> None:
    await sql.create_session(session())
    held = threading.Event()
    blocked = asyncio.create_task(sql._database.read(lambda _: held.wait()))
    await asyncio.sleep(0)
    cancelled = asyncio.create_task(append(sql, b"whole"))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    held.set()
    await blocked
    record = await sql.get_session("ann", "s")
    assert [entry.payload for entry in await sql.journal("ann", record.head)] == [b"whole"]


async def test_close_finishes_what_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    first = await SqlCatalog.open(path)
    await first.create_session(session())
    appends = [asyncio.create_task(append(first)) for _ in range(10)]
    await asyncio.sleep(0)
    await first.close()
    await first.close()
    await asyncio.gather(*appends)
    second = await SqlCatalog.open(path)
    assert (await second.get_session("ann", "s")).revision == 10
    await second.close()


# Size


async def long_session(sql: SqlCatalog, length: int) -> int:
    """A session of so many entries, written behind the catalog's back in one go: its head."""
    key, rows, chain = await sql.owner_key("ann"), [], b""
    for number in range(1, length + 1):
        payload = b"entry %d" % number
        chain = keyed_bytes(key, chain, payload)
        row = {"id": number, "owner": "ann", "parent": number - 1 or None, "revision": number}
        rows.append(row | {"chain": chain, "payload": payload})

    def add(connection: Connection) -> None:
        connection.execute(insert(schema.entries), rows)

    await sql._database.write(add)
    await sql.create_session(session(head=length))
    return length


async def test_a_journal_of_20_000_entries(sql: SqlCatalog) -> None:
    await long_session(sql, 20_000)
    record = await append(sql, b"the last", expected=20_000)
    entries = await sql.journal("ann", record.head)
    assert [entry.revision for entry in entries] == list(range(1, 20_002))
    assert [entry.payload for entry in entries[-2:]] == [b"entry 20000", b"the last"]


async def test_one_slice_removes_no_more_than_its_limit(sql: SqlCatalog) -> None:
    head = await long_session(sql, 1_000)
    await sql.delete_session("ann", "s")
    assert (await sql.unreferenced(limit=100)).more
    assert len(await sql.journal("ann", head - 100)) == 900
    with pytest.raises(JournalCorrupt):
        await sql.journal("ann", head - 99)
    await drained(sql)
    with pytest.raises(JournalCorrupt):
        await sql.journal("ann", 1)


# Opening


async def test_everything_survives_reopening(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    first = await SqlCatalog.open(path)
    heads = await grown(first, b"one", b"two")
    made = await first.create_checkpoint(checkpoint(head=heads[1]), manifest=b"m", pages=[digest(1)])
    record, key = await first.get_session("ann", "s"), await first.owner_key("ann")
    await first.close()
    second = await SqlCatalog.open(path)
    assert await second.get_session("ann", "s") == record
    assert await second.get_checkpoint("ann", "c") == made
    assert await second.manifest(made) == b"m"
    assert await second.owner_key("ann") == key
    assert len(await second.journal("ann", heads[1])) == 2
    await second.close()


async def test_the_log_is_synced_at_every_commit(sql: SqlCatalog) -> None:
    def settings(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.exec_driver_sql(f"pragma {name}").scalar_one() for name in names]

    assert await sql._database.read(settings) == ["wal", 2, 1]


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    first = await SqlCatalog.open(path)
    await on_thread(first, "update store set schema_version = schema_version + 1")
    await first.close()
    with pytest.raises(StartupError, match="newer holdfast"):
        await SqlCatalog.open(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("select epoch from store").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + bytes(5_000)])
async def test_a_file_that_is_no_catalog_is_a_startup_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.sqlite3"
    path.write_bytes(content)
    with pytest.raises(StartupError) as caught:
        await SqlCatalog.open(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


async def test_a_folder_that_is_not_there_is_a_startup_error(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot open the catalog"):
        await SqlCatalog.open(tmp_path / "absent" / "catalog.sqlite3")
