"""SQL of owners and journal entries. Every function runs inside the caller's transaction."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from holdfast_server.store.catalog import Entry
from holdfast_server.store.damage import JournalCorrupt
from holdfast_server.store.digest import KEY_BYTES, keyed_bytes
from holdfast_server.store.schema import entries, entry_media, owners


def owner_key(connection: Connection, owner: str) -> bytes | None:
    """The owner's digest key, if it has been made."""
    return connection.scalar(select(owners.c.digest_key).where(owners.c.owner == owner))


def make_owner_key(connection: Connection, owner: str) -> bytes:
    """The owner's digest key, made now unless it was before."""
    key = owner_key(connection, owner)
    if key is None:
        key = secrets.token_bytes(KEY_BYTES)
        connection.execute(insert(owners).values(owner=owner, digest_key=key))
    return key


def revision_of(connection: Connection, owner: str, head: int | None) -> int | None:
    """The revision of a head: 0 for the empty journal, None when the entry is gone."""
    if head is None:
        return 0
    return connection.scalar(select(entries.c.revision).where(entries.c.id == head, entries.c.owner == owner))


def add_entry(
    connection: Connection, owner: str, parent: int | None, payload: bytes, media: Sequence[str]
) -> tuple[int, int]:
    """Add an entry after `parent`: its id and revision."""
    revision, chain = 0, b""
    if parent is not None:
        above = connection.execute(
            select(entries.c.revision, entries.c.chain).where(entries.c.id == parent)
        ).one()
        revision, chain = above.revision, above.chain
    row = {
        "owner": owner,
        "parent": parent,
        "revision": revision + 1,
        "chain": keyed_bytes(make_owner_key(connection, owner), chain, payload),
        "payload": payload,
    }
    entry = connection.execute(insert(entries).values(row).returning(entries.c.id)).scalar_one()
    digests = [{"entry": entry, "digest": digest} for digest in dict.fromkeys(media)]
    if digests:
        connection.execute(insert(entry_media), digests)
    return entry, revision + 1


def journal(connection: Connection, owner: str, head: int | None) -> list[Entry]:
    """The entries from the root to `head`, verified."""
    if head is None:
        return []
    start = select(entries.c.id, entries.c.parent, entries.c.revision)
    path = start.where(entries.c.id == head, entries.c.owner == owner).cte("path", recursive=True)
    # Revisions must fall, so that a damaged parent link cannot lead in circles.
    above = start.where(entries.c.id == path.c.parent, entries.c.revision < path.c.revision)
    path = path.union_all(above)
    rows = connection.execute(select(entries).join(path, entries.c.id == path.c.id)).all()
    return _verified(sorted(rows, key=lambda row: row.revision), owner_key(connection, owner))


def _verified(rows: list[Row[Any]], key: bytes | None) -> list[Entry]:
    if not rows or key is None:
        raise JournalCorrupt("the journal's head is missing")
    parent, chain = None, b""
    journal = []
    for revision, row in enumerate(rows, 1):
        if row.revision != revision or row.parent != parent:
            raise JournalCorrupt(f"journal entry {revision} is missing or misplaced")
        parent, chain = row.id, keyed_bytes(key, chain, row.payload)
        if row.chain != chain:
            raise JournalCorrupt(f"journal entry {revision} was altered")
        journal.append(Entry(row.id, row.parent, revision, row.payload, chain))
    return journal
