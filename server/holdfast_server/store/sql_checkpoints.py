"""SQL of checkpoints: each function is the work of the `Catalog` method it is called by.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import zip_longest
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.store import sql_collect, sql_journal
from holdfast_server.store.catalog import CheckpointRecord, PrefixMatch
from holdfast_server.store.damage import ManifestCorrupt
from holdfast_server.store.digest import keyed_digest
from holdfast_server.store.schema import checkpoint_pages, checkpoints

# Manifests are large; a record comes without.
_ASKED = 400  # prefixes in one statement
_COLUMNS = [checkpoints.c[field.name] for field in fields(CheckpointRecord)]


def create(
    connection: Connection,
    record: CheckpointRecord,
    manifest: bytes,
    pages: Sequence[str],
    prefixes: Sequence[str],
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
        references = [
            {"checkpoint": number, "ordinal": i, "digest": page, "prefix": prefix}
            for i, (page, prefix) in enumerate(zip_longest(pages, prefixes))
        ]
        connection.execute(insert(checkpoint_pages), references)
    return replace(record, revision=revision, row=number)


def create_with_journal(
    connection: Connection,
    record: CheckpointRecord,
    journal: Sequence[tuple[bytes, Sequence[str]]],
    manifest: bytes,
    pages: Sequence[str],
) -> CheckpointRecord:
    head = None
    for payload, media in journal:
        head, _ = sql_journal.add_entry(connection, record.owner, head, payload, media)
    return create(connection, replace(record, head=head), manifest, pages, ())


def find(connection: Connection, owner: str, checkpoint_id: str) -> CheckpointRecord | None:
    chosen = select(*_COLUMNS).where(
        checkpoints.c.owner == owner, checkpoints.c.checkpoint_id == checkpoint_id
    )
    row = connection.execute(chosen).one_or_none()
    return None if row is None else _record(dict(row._mapping))


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
    connection: Connection, owner: str, session_id: str, after_id: str, limit: int, automatic: bool
) -> list[CheckpointRecord]:
    chosen = select(*_COLUMNS).where(checkpoints.c.owner == owner, checkpoints.c.checkpoint_id > after_id)
    if session_id:
        chosen = chosen.where(checkpoints.c.session_id == session_id)
    if not automatic:
        chosen = chosen.where(~checkpoints.c.automatic)
    rows = connection.execute(chosen.order_by(checkpoints.c.checkpoint_id).limit(limit))
    return [_record(dict(row._mapping)) for row in rows]


def remove(connection: Connection, owner: str, checkpoint_id: str) -> bool:
    record = find(connection, owner, checkpoint_id)
    if record is None:
        return False
    _remove(connection, record)
    return True


def _remove(connection: Connection, record: CheckpointRecord) -> None:
    pages = select(checkpoint_pages.c.digest).where(checkpoint_pages.c.checkpoint == record.row)
    sql_collect.loosen_blobs(connection, connection.scalars(pages.distinct()).all())
    connection.execute(delete(checkpoints).where(checkpoints.c.row == record.row))
    sql_collect.loosen_head(connection, record.head)


def change(
    connection: Connection,
    owner: str,
    checkpoint_id: str,
    *,
    labels: Mapping[str, str] | None,
    ttl: int | None,
    pinned: bool | None,
) -> CheckpointRecord:
    record = get(connection, owner, checkpoint_id)
    if labels is not None:
        record = replace(record, labels=dict(labels))
    if ttl is not None:
        record = replace(record, expires=record.created + ttl if ttl else None)
    if pinned is not None:
        record = replace(record, pinned=pinned)
    changed = {
        "labels": json.dumps(dict(record.labels)),
        "expires": record.expires,
        "pinned": record.pinned,
    }
    connection.execute(update(checkpoints).where(checkpoints.c.row == record.row).values(changed))
    return record


def drop_expired(connection: Connection, now: int, limit: int) -> int:
    return _drop(connection, checkpoints.c.expires <= now, limit)


def drop_automatic(connection: Connection, limit: int) -> int:
    return _drop(connection, checkpoints.c.automatic, limit)


def trim_automatic(connection: Connection, owner: str, session_id: str, keep: int) -> int:
    of_session = (checkpoints.c.owner == owner) & (checkpoints.c.session_id == session_id)
    which = of_session & checkpoints.c.automatic & ~checkpoints.c.pinned
    newest = select(checkpoints.c.row).where(which).order_by(checkpoints.c.row.desc()).limit(keep)
    return _drop(connection, which & checkpoints.c.row.not_in(connection.scalars(newest).all()), limit=100)


def _drop(connection: Connection, which: ColumnElement[bool], limit: int) -> int:
    """Remove the oldest of those that are not pinned."""
    chosen = select(*_COLUMNS).where(which, ~checkpoints.c.pinned).order_by(checkpoints.c.row).limit(limit)
    found = [_record(row._mapping) for row in connection.execute(chosen)]
    for record in found:
        _remove(connection, record)
    return len(found)


def find_prefix(
    connection: Connection, owner: str, prefixes: Sequence[str], compatibility_key: str
) -> PrefixMatch | None:
    """Asks for the longest prefixes first, a slice at a time."""
    for stop in range(len(prefixes), 0, -_ASKED):
        asked = {prefix: index for index, prefix in enumerate(prefixes) if stop - _ASKED <= index < stop}
        chosen = (
            select(checkpoint_pages.c.prefix, checkpoint_pages.c.ordinal, *_COLUMNS)
            .join(checkpoints, checkpoints.c.row == checkpoint_pages.c.checkpoint)
            .where(checkpoint_pages.c.prefix.in_(asked), checkpoints.c.owner == owner)
            .where(checkpoints.c.compatibility_key == compatibility_key)
        )
        found = connection.execute(chosen).all()
        if found:
            best = max(found, key=lambda row: (asked[row.prefix], row.row))
            record = _record({field.name: best._mapping[field.name] for field in fields(CheckpointRecord)})
            return PrefixMatch(record, asked[best.prefix], best.ordinal + 1)
    return None


def _not_found() -> HoldfastError:
    return HoldfastError(Reason.CHECKPOINT_NOT_FOUND, "there is no such checkpoint")


def _record(columns: Mapping[Any, Any]) -> CheckpointRecord:
    return CheckpointRecord(**dict(columns) | {"labels": json.loads(columns["labels"])})
