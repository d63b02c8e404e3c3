"""SQL of sessions: each function is the work of the `Catalog` method it is called by.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.store import sql_collect, sql_journal
from holdfast_server.store.catalog import SessionRecord
from holdfast_server.store.schema import sessions

_MOVING = ("head", "revision", "token_count", "position", "updated", "expires")


def create(connection: Connection, record: SessionRecord, limit: int | None) -> None:
    if _find(connection, record.owner, record.session_id) is not None:
        raise HoldfastError(Reason.SESSION_EXISTS, "a session of this id exists")
    if limit is not None and count(connection) >= limit:
        raise HoldfastError(Reason.SESSION_LIMIT, f"the server keeps at most {limit} sessions; delete some")
    revision = _revision(connection, record.owner, record.head)
    row = asdict(record) | {"revision": revision, "labels": json.dumps(dict(record.labels))}
    connection.execute(insert(sessions).values(row))


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(sessions)).scalar_one()


def get(connection: Connection, owner: str, session_id: str) -> SessionRecord:
    record = _find(connection, owner, session_id)
    if record is None:
        raise HoldfastError(Reason.SESSION_NOT_FOUND, "there is no such session")
    return record


def listed(connection: Connection, owner: str, after_id: str, limit: int) -> list[SessionRecord]:
    chosen = select(sessions).where(sessions.c.owner == owner, sessions.c.session_id > after_id)
    rows = connection.execute(chosen.order_by(sessions.c.session_id).limit(limit))
    return [_record(row) for row in rows]


def remove(connection: Connection, owner: str, session_id: str) -> bool:
    record = _find(connection, owner, session_id)
    if record is None:
        return False
    connection.execute(delete(sessions).where(_is(owner, session_id)))
    sql_collect.loosen_head(connection, record.head)
    return True


def append(
    connection: Connection,
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
    record = get(connection, owner, session_id)
    if expected_revision not in (None, record.revision):
        raise HoldfastError(
            Reason.STALE_REVISION,
            f"the session is at revision {record.revision}",
            metadata={"current_revision": str(record.revision)},
        )
    entry, revision = sql_journal.add_entry(connection, owner, record.head, payload, media)
    record = replace(record, head=entry, revision=revision)
    return _move(connection, replace(record, token_count=token_count, position=position, updated=updated))


def reset(
    connection: Connection,
    owner: str,
    session_id: str,
    *,
    head: int | None,
    token_count: int,
    position: int,
    updated: int,
) -> SessionRecord:
    record = get(connection, owner, session_id)
    revision = _revision(connection, owner, head)
    if head != record.head:
        sql_collect.loosen_head(connection, record.head)
    record = replace(record, head=head, revision=revision)
    return _move(connection, replace(record, token_count=token_count, position=position, updated=updated))


def change(
    connection: Connection,
    owner: str,
    session_id: str,
    *,
    labels: Mapping[str, str] | None,
    ttl: int | None,
    now: int,
) -> SessionRecord:
    record = get(connection, owner, session_id)
    if labels is not None:
        record = replace(record, labels=dict(labels))
    if ttl is not None:
        record = replace(record, ttl=ttl or None, expires=_expiry(now, ttl))
    changed = {"labels": json.dumps(dict(record.labels)), "ttl": record.ttl, "expires": record.expires}
    connection.execute(update(sessions).where(_is(owner, session_id)).values(changed))
    return record


def expired(connection: Connection, now: int, limit: int) -> list[SessionRecord]:
    chosen = select(sessions).where(sessions.c.expires <= now)
    return [_record(row) for row in connection.execute(chosen.order_by(sessions.c.expires).limit(limit))]


def _expiry(used: int, ttl: int | None) -> int | None:
    return used + ttl if ttl else None


def _move(connection: Connection, record: SessionRecord) -> SessionRecord:
    record = replace(record, expires=_expiry(record.updated, record.ttl))
    moved = {name: getattr(record, name) for name in _MOVING}
    connection.execute(update(sessions).where(_is(record.owner, record.session_id)).values(moved))
    return record


def _revision(connection: Connection, owner: str, head: int | None) -> int:
    revision = sql_journal.revision_of(connection, owner, head)
    if revision is None:
        raise HoldfastError(Reason.CHECKPOINT_NOT_FOUND, "the checkpoint was deleted meanwhile")
    return revision


def _find(connection: Connection, owner: str, session_id: str) -> SessionRecord | None:
    row = connection.execute(select(sessions).where(_is(owner, session_id))).one_or_none()
    return None if row is None else _record(row)


def _is(owner: str, session_id: str) -> Any:
    return (sessions.c.owner == owner) & (sessions.c.session_id == session_id)


def _record(row: Row[Any]) -> SessionRecord:
    fields = dict(row._mapping)
    return SessionRecord(**fields | {"labels": json.loads(fields["labels"])})
