"""The catalog in SQL: each method is one function of sql_* on the database's thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from holdfast_server.errors import HoldfastError
from holdfast_server.store import sql_check, sql_checkpoints, sql_collect, sql_journal, sql_sessions, sweep
from holdfast_server.store.catalog import (
    Catalog,
    Checked,
    CheckpointRecord,
    Entry,
    FileStamp,
    PrefixMatch,
    Reference,
    SessionRecord,
    Unreferenced,
)
from holdfast_server.store.database import Database
from holdfast_server.store.schema import files
from holdfast_server.store.sweep import Doomed


class SqlCatalog(Catalog):
    """The catalog in one SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, path: Path) -> SqlCatalog:
        """Open or make the file; every other opener's writes are refused from now on.

        Raises `StartupError`.
        """
        return cls(await Database.open(path))

    @property
    def store_id(self) -> str:
        return self._database.store_id

    @property
    def epoch(self) -> int:
        return self._database.epoch

    async def owner_key(self, owner: str) -> bytes:
        key = await self._database.read(lambda c: sql_journal.owner_key(c, owner))
        if key is not None:
            return key
        return await self._database.write(lambda c: sql_journal.make_owner_key(c, owner))

    async def create_session(self, record: SessionRecord, *, limit: int | None = None) -> None:
        await self._database.write(lambda c: sql_sessions.create(c, record, limit))

    async def get_session(self, owner: str, session_id: str) -> SessionRecord:
        return await self._database.read(lambda c: sql_sessions.get(c, owner, session_id))

    async def list_sessions(self, owner: str, *, after_id: str = "", limit: int = 100) -> list[SessionRecord]:
        return await self._database.read(lambda c: sql_sessions.listed(c, owner, after_id, limit))

    async def delete_session(self, owner: str, session_id: str) -> bool:
        return await self._database.write(lambda c: sql_sessions.remove(c, owner, session_id))

    async def append(
        self,
        owner: str,
        session_id: str,
        *,
        expected_revision: int | None,
        payload: bytes,
        media: Sequence[str],
        token_count: int,
        position: int,
        updated: int,
    ) -> SessionRecord:
        work = partial(
            sql_sessions.append,
            owner=owner,
            session_id=session_id,
            expected_revision=expected_revision,
            payload=payload,
            media=tuple(media),
            token_count=token_count,
            position=position,
            updated=updated,
        )
        return await self._database.write(work)

    async def journal(self, owner: str, head: int | None) -> list[Entry]:
        return await self._database.read(lambda c: sql_journal.journal(c, owner, head))

    async def reset(
        self,
        owner: str,
        session_id: str,
        *,
        head: int | None,
        token_count: int,
        position: int,
        updated: int,
    ) -> SessionRecord:
        work = partial(
            sql_sessions.reset,
            owner=owner,
            session_id=session_id,
            head=head,
            token_count=token_count,
            position=position,
            updated=updated,
        )
        return await self._database.write(work)

    async def update_session(
        self,
        owner: str,
        session_id: str,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: int | None = None,
        now: int,
    ) -> SessionRecord:
        return await self._database.write(
            lambda c: sql_sessions.change(c, owner, session_id, labels=labels, ttl=ttl, now=now)
        )

    async def expired_sessions(self, now: int, *, limit: int = 100) -> list[SessionRecord]:
        return await self._database.read(lambda c: sql_sessions.expired(c, now, limit))

    async def create_checkpoint(
        self,
        record: CheckpointRecord,
        *,
        manifest: bytes,
        pages: Sequence[str],
        prefixes: Sequence[str] = (),
    ) -> CheckpointRecord:
        return await self._database.write(
            lambda c: sql_checkpoints.create(c, record, manifest, tuple(pages), tuple(prefixes))
        )

    async def import_checkpoint(
        self,
        record: CheckpointRecord,
        *,
        journal: Sequence[tuple[bytes, Sequence[str]]],
        manifest: bytes,
        pages: Sequence[str],
    ) -> CheckpointRecord:
        return await self._database.write(
            lambda c: sql_checkpoints.create_with_journal(c, record, tuple(journal), manifest, tuple(pages))
        )

    async def get_checkpoint(self, owner: str, checkpoint_id: str) -> CheckpointRecord:
        return await self._database.read(lambda c: sql_checkpoints.get(c, owner, checkpoint_id))

    async def manifest(self, record: CheckpointRecord) -> bytes:
        return await self._database.read(lambda c: sql_checkpoints.manifest(c, record))

    async def list_checkpoints(
        self,
        owner: str,
        *,
        session_id: str = "",
        after_id: str = "",
        limit: int = 100,
        automatic: bool = True,
    ) -> list[CheckpointRecord]:
        return await self._database.read(
            lambda c: sql_checkpoints.listed(c, owner, session_id, after_id, limit, automatic)
        )

    async def delete_checkpoint(self, owner: str, checkpoint_id: str) -> bool:
        return await self._database.write(lambda c: sql_checkpoints.remove(c, owner, checkpoint_id))

    async def update_checkpoint(
        self,
        owner: str,
        checkpoint_id: str,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: int | None = None,
        pinned: bool | None = None,
    ) -> CheckpointRecord:
        return await self._database.write(
            lambda c: sql_checkpoints.change(c, owner, checkpoint_id, labels=labels, ttl=ttl, pinned=pinned)
        )

    async def drop_expired(self, now: int, *, limit: int = 100) -> int:
        return await self._database.write(lambda c: sql_checkpoints.drop_expired(c, now, limit))

    async def trim_automatic(self, owner: str, session_id: str, keep: int) -> int:
        return await self._database.write(
            lambda c: sql_checkpoints.trim_automatic(c, owner, session_id, keep)
        )

    async def drop_automatic(self, *, limit: int = 16) -> int:
        return await self._database.write(lambda c: sql_checkpoints.drop_automatic(c, limit))

    async def find_prefix(
        self, owner: str, prefixes: Sequence[str], *, compatibility_key: str
    ) -> PrefixMatch | None:
        return await self._database.read(
            lambda c: sql_checkpoints.find_prefix(c, owner, tuple(prefixes), compatibility_key)
        )

    async def file_digest(self, stamp: FileStamp) -> str | None:
        same = [files.c[name] == value for name, value in _stamp(stamp).items()]
        return await self._database.read(lambda c: c.scalar(select(files.c.digest).where(*same)))

    async def remember_file_digest(self, stamp: FileStamp, digest: str) -> None:
        def replace(connection: Connection) -> None:
            connection.execute(delete(files).where(files.c.path == stamp.path))
            connection.execute(insert(files).values(**_stamp(stamp), digest=digest))

        await self._database.write(replace)

    async def unreferenced(self, *, limit: int = 256) -> Unreferenced:
        return await self._database.write(lambda c: sql_collect.unreferenced(c, limit))

    async def referenced(self, digests: Collection[str]) -> set[str]:
        return await self._database.read(lambda c: sql_collect.referenced(c, digests))

    async def check(self, place: tuple[int, int] = (0, 0), *, limit: int = 500) -> Checked:
        return await self._database.read(lambda c: sql_check.check(c, place, limit))

    async def references(self, after: str = "", *, limit: int = 500) -> list[Reference]:
        return await self._database.read(lambda c: sql_check.references(c, after, limit))

    async def holders(self, reference: Reference) -> str:
        return await self._database.read(lambda c: sql_check.holders(c, reference))

    async def integrity(self) -> list[str]:
        """What SQLite finds wrong with its file."""
        try:
            found = await self._database.read(
                lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalars().all()
            )
        except HoldfastError as error:
            return [str(error.__cause__ or error).splitlines()[0]]
        return [] if found == ["ok"] else [str(line) for line in found]

    async def expire(self, now: int, *, dry: bool = False) -> Doomed:
        """Remove what has expired and forget what nothing needs; `dry` only tells.

        For a store that nobody else uses: the blobs are left for a sweep.
        """

        def work(connection: Connection) -> Doomed:
            savepoint = connection.begin_nested()
            doomed = sweep.expire(connection, now)
            if dry:
                savepoint.rollback()
            else:
                savepoint.commit()
            return doomed

        return await self._database.write(work)

    async def close(self) -> None:
        await self._database.close()


def _stamp(stamp: FileStamp) -> dict[str, Any]:
    return {
        "path": stamp.path,
        "size": stamp.size,
        "mtime_ns": stamp.mtime_ns,
        "inode": str(stamp.inode),
    }
