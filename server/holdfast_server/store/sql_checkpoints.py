"""SQL of checkpoints: each function is the work of the `Catalog` method it is called by.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.store import sql_collect, sql_journal
from holdfast_server.store.catalog import CheckpointRecord
from holdfast_server.store.damage import ManifestCorrupt
from holdfast_server.store.digest import keyed_digest
from holdfast_server.store.schema import checkpoint_pages, checkpoints, entries

# Manifests are large; a record comes without.
_COLUMNS = [checkpoints.c[field.name] for field in fields(CheckpointRecord)]


def create(
    connection: Connection, record: CheckpointRecord, manifest: bytes, pages: Sequence[str]
) -> CheckpointRecord:
    if find(connection, record.owner, record.checkpoint_id) is not None:
        raise HoldfastError(Reason.CHECKPOINT_EXISTS, "a checkpoint of this id exists")
    revision = sql_journal.revision_of(connection, record.owner, record.head)
    if revision is None:
        raise HoldfastError(Reason.SESSION_NOT_FOUND, "the session was deleted or rolled back meanwhile")
    key = sql_journal.make_owner_key(connection, record.owner)
    row = asdict(record) | {
        "revision": revision,
        "labels": json.dumps(dict(record.labels)),
        "manifest": manifest,
        "manifest_digest": keyed_digest(key, manifest),
    }
    del row["row"]
    number = connection.execute(insert(checkpoints).values(row).returning(checkpoints.c.row)).scalar_one()
    if pages:
        references = [{"checkpoint": number, "ordinal": i, "digest": page} for i, page in enumerate(pages)]
        connection.execute(insert(checkpoint_pages), references)
    return replace(record, revision=revision, row=number)


def find(connection: Connection, owner: str, checkpoint_id: str) -> CheckpointRecord | None:
    chosen = select(*_COLUMNS).where(
        checkpoints.c.owner == owner, checkpoints.c.checkpoint_id == checkpoint_id
    )
    row = connection.execute(chosen).one_or_none()
    return None if row is None else _record(row)


def get(connection: Connection, owner: str, checkpoint_id: str) -> CheckpointRecord:
    record = find(connection, owner, checkpoint_id)
    if record is None:
        raise _not_found()
    return record


def manifest(connection: Connection, record: CheckpointRecord) -> bytes:
    chosen = select(checkpoints.c.manifest, checkpoints.c.manifest_digest).where(
        checkpoints.c.row == record.row, checkpoints.c.owner == record.owner
    )
    row = connection.execute(chosen).one_or_none()
    if row is None:
        raise _not_found()
    key = sql_journal.owner_key(connection, record.owner)
    if key is None or keyed_digest(key, row.manifest) != row.manifest_digest:
        raise ManifestCorrupt("the checkpoint's manifest was altered")
    return bytes(row.manifest)


def listed(
    connection: Connection, owner: str, session_id: str, after_id: str, limit: int
) -> list[CheckpointRecord]:
    chosen = select(*_COLUMNS).where(checkpoints.c.owner == owner, checkpoints.c.checkpoint_id > after_id)
    if session_id:
        chosen = chosen.where(checkpoints.c.session_id == session_id)
    rows = connection.execute(chosen.order_by(checkpoints.c.checkpoint_id).limit(limit))
    return [_record(row) for row in rows]


def remove(connection: Connection, owner: str, checkpoint_id: str) -> bool:
    record = find(connection, owner, checkpoint_id)
    if record is None:
        return False
    pages = select(checkpoint_pages.c.digest).where(checkpoint_pages.c.checkpoint == record.row)
    sql_collect.loosen_blobs(connection, connection.scalars(pages.distinct()).all())
    connection.execute(delete(checkpoints).where(checkpoints.c.row == record.row))
    sql_collect.loosen_head(connection, record.head)
    return True


def latest(
    connection: Connection, owner: str, head: int | None, compatibility_key: str | None
) -> CheckpointRecord | None:
    step = select(entries.c.id, entries.c.parent, entries.c.revision)
    path = step.where(entries.c.id == head, entries.c.owner == owner).cte("path", recursive=True)
    path = path.union_all(step.where(entries.c.id == path.c.parent, entries.c.revision < path.c.revision))
    chosen = select(*_COLUMNS).join(path, checkpoints.c.head == path.c.id).where(checkpoints.c.owner == owner)
    if compatibility_key is not None:
        chosen = chosen.where(checkpoints.c.compatibility_key == compatibility_key)
    newest = chosen.order_by(checkpoints.c.revision.desc(), checkpoints.c.row.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    return None if row is None else _record(row)


def _not_found() -> HoldfastError:
    return HoldfastError(Reason.CHECKPOINT_NOT_FOUND, "there is no such checkpoint")


def _record(row: Row[Any]) -> CheckpointRecord:
    columns = dict(row._mapping)
    return CheckpointRecord(**columns | {"labels": json.loads(columns["labels"])})
