"""One SQLite file, one connection, one thread.

Debian's SQLite 3.40.1 can corrupt a write-ahead log that two connections
reset at once; with one connection there is nothing to race. Writes that wait
together share one commit (and its fsync), each behind its own savepoint, so
that one that is refused leaves the others alone; nobody hears of success
before the commit. Every such transaction first checks that the store's epoch
is still ours.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from holdfast_server.errors import HoldfastError, Reason, StartupError
from holdfast_server.store import migrations, schema
from holdfast_server.store.damage import CatalogDamaged

T = TypeVar("T")
_GROUP = 64  # jobs that share a commit at most


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    """Work for the thread, and where its outcome goes."""

    work: Callable[[Connection], T]
    writes: bool
    future: Future[T] = field(default_factory=Future)

    def __post_init__(self) -> None:
        # A running future cannot be cancelled: what is queued is carried out.
        self.future.set_running_or_notify_cancel()


class Database:
    """The connection and its thread.

    Thread: `read`, `write` and `close` are called on an event loop; `work`
    runs on the database's thread, in the order of the calls, and must not
    commit. Errors: whatever `work` raises; `HoldfastError` with STORE_FULL,
    LEASE_LOST (writes) or INTERNAL.
    """

    def __init__(self, path: Path) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="holdfast-catalog")
        self._queue: deque[_Job[Any]] = deque()
        self._engine = _engine(path)
        self._connection: Connection | None = None
        self._closed = False
        self.store_id = ""
        self.epoch = 0

    @classmethod
    async def open(cls, path: Path) -> Database:
        """Open or make the file and take the next epoch. Raises `StartupError`."""
        database = cls(path)
        try:
            await asyncio.wrap_future(database._executor.submit(database._start))
        except BaseException as error:
            await database.close()
            if isinstance(error, SQLAlchemyError | sqlite3.Error):
                cause = getattr(error, "orig", None) or error
                # Its subclasses tell of a file that cannot be reached, locked or written.
                kind = CatalogDamaged if type(cause) is sqlite3.DatabaseError else StartupError
                raise kind(f"cannot open the catalog {path}: {cause}") from error
            raise
        return database

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns; it must not write."""
        return await self._submit(_Job(work, writes=False))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, once that is committed."""
        return await self._submit(_Job(work, writes=True))

    async def close(self) -> None:
        """Finish what is queued, then close the connection and end the thread."""
        if not self._closed:
            self._closed = True
            await asyncio.wrap_future(self._executor.submit(self._discard))
            self._executor.shutdown()

    async def _submit(self, job: _Job[T]) -> T:
        self._queue.append(job)
        self._executor.submit(self._drain)
        return await asyncio.wrap_future(job.future)

    # On the database's thread from here on.

    def _start(self) -> None:
        self._connection = self._engine.connect()
        with self._connection.begin():
            self.store_id, self.epoch = _take_over(self._connection)

    def _drain(self) -> None:
        """Run the next job, and with a write those that wait right behind it.

        There is one call for each job, and a call that finds none left is free.
        """
        group = [self._queue.popleft()] if self._queue else []
        while group and group[0].writes and self._queue and self._queue[0].writes and len(group) < _GROUP:
            group.append(self._queue.popleft())
        if group:
            self._run(group)

    def _run(self, group: list[_Job[Any]]) -> None:
        try:
            connection = self._live()
            with connection.begin():
                if group[0].writes:
                    self._check_epoch(connection)
                outcomes = [_attempt(connection, job) for job in group]
        except Exception as error:  # noqa: BLE001 (every caller is told)
            failure = self._failed(error)
            outcomes = [failure] * len(group)
        for job, outcome in zip(group, outcomes, strict=True):
            _deliver(job, outcome)

    def _failed(self, error: Exception) -> _Failure:
        if not isinstance(error, SQLAlchemyError | sqlite3.Error):
            return _Failure(error)
        if _is_full(error):  # rolled back; the file is as it was
            refusal = HoldfastError(Reason.STORE_FULL, "the server's disk is full")
        else:
            # What reached the disk is unknown, and a second sync would lie.
            self._discard()
            refusal = HoldfastError(Reason.INTERNAL, "the catalog failed")
        refusal.__cause__ = error
        return _Failure(refusal)

    def _live(self) -> Connection:
        """The connection; after a failure a new one, to a file found sound."""
        if self._connection is None:
            self._connection = self._engine.connect()
            try:
                _verify(self._connection)
            except BaseException:
                self._discard()
                raise
        return self._connection

    def _check_epoch(self, connection: Connection) -> None:
        if connection.scalar(select(schema.store.c.epoch)) != self.epoch:
            raise HoldfastError(Reason.LEASE_LOST, "another server has taken the store over")

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        with suppress(SQLAlchemyError, sqlite3.Error):
            if connection is not None:
                connection.close()
        with suppress(SQLAlchemyError, sqlite3.Error):
            self._engine.dispose()


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException


def _attempt(connection: Connection, job: _Job[Any]) -> object:
    """Run one job of a group; what it refuses is undone alone.

    The database's own errors end the whole transaction: SQLite may have
    rolled it back already.
    """
    savepoint = connection.begin_nested()
    try:
        value = job.work(connection)
    except SQLAlchemyError:
        raise
    except Exception as error:  # noqa: BLE001 (its caller is told)
        savepoint.rollback()
        return _Failure(error)
    savepoint.commit()
    return value


def _deliver(job: _Job[Any], outcome: object) -> None:
    if isinstance(outcome, _Failure):
        job.future.set_exception(outcome.error)
    else:
        job.future.set_result(outcome)


def _engine(path: Path) -> Engine:
    # One connection, used on one thread; `check_same_thread` proves the latter.
    engine = create_engine(
        f"sqlite+pysqlite:///{path}", poolclass=StaticPool, connect_args={"check_same_thread": True}
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin when we say so
        if connection.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
            raise StartupError("the catalog's file system does not support SQLite's write-ahead log")
        for setting in ("synchronous=FULL", "fullfsync=ON", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _take_over(connection: Connection) -> tuple[str, int]:
    """Make or migrate the tables if need be, and count this opening: (store id, epoch)."""
    if not inspect(connection).has_table(schema.store.name):
        schema.metadata.create_all(connection)
        fresh = {"schema_version": migrations.current(), "epoch": 0, "store_id": secrets.token_hex(16)}
        connection.execute(insert(schema.store).values(fresh))
    row = connection.execute(select(schema.store)).one()
    migrations.migrate(connection, row.schema_version)
    connection.execute(update(schema.store).values(epoch=row.epoch + 1))
    return row.store_id, row.epoch + 1


def _verify(connection: Connection) -> None:
    """Move the log into the file with a sync of its own, and check the file."""
    driver = connection.connection.driver_connection
    assert driver is not None
    busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    findings = driver.execute("PRAGMA quick_check(1)").fetchall()
    if busy or findings != [("ok",)]:
        raise sqlite3.DatabaseError("the catalog is damaged")


def _is_full(error: Exception) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
