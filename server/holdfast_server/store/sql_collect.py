"""SQL of collection: what to look at again after a name or a reference is gone.

An entry is garbage when nothing names it and nothing follows it. Deleting a
name only notes its head as loose; pruning walks up from there and stops at
the first entry that is still needed, so that its cost is that of what it
removes, cut into slices. Every function runs inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, Table, delete, exists, insert, select
from sqlalchemy.sql.dml import ReturningDelete

from holdfast_server.store.catalog import Unreferenced
from holdfast_server.store.schema import (
    checkpoint_pages,
    checkpoints,
    entries,
    entry_media,
    loose_blobs,
    loose_heads,
    sessions,
)

_BATCH = 500  # bound parameters in one statement


def loosen_head(connection: Connection, head: int | None) -> None:
    """Note that an entry lost a name."""
    if head is not None:
        connection.execute(delete(loose_heads).where(loose_heads.c.entry == head))
        connection.execute(insert(loose_heads).values(entry=head))


def loosen_blobs(connection: Connection, digests: Collection[str]) -> None:
    """Note that pages or media lost a reference."""
    for batch in _batches(sorted(set(digests))):
        connection.execute(delete(loose_blobs).where(loose_blobs.c.digest.in_(batch)))
        connection.execute(insert(loose_blobs), [{"digest": digest} for digest in batch])


def unreferenced(connection: Connection, limit: int) -> Unreferenced:
    """Prune one slice; the digests it returns are forgotten here."""
    _prune(connection, limit)
    loose = connection.scalars(select(loose_blobs.c.digest).limit(min(limit, _BATCH))).all()
    connection.execute(delete(loose_blobs).where(loose_blobs.c.digest.in_(loose)))
    kept = referenced(connection, loose)
    more = _any(connection, loose_heads) or _any(connection, loose_blobs)
    return Unreferenced(tuple(digest for digest in loose if digest not in kept), more)


def referenced(connection: Connection, digests: Collection[str]) -> set[str]:
    """Those of the digests that a checkpoint or an entry refers to."""
    pages = select(checkpoint_pages.c.digest).where(checkpoint_pages.c.digest.in_(digests))
    media = select(entry_media.c.digest).where(entry_media.c.digest.in_(digests))
    return set(connection.scalars(pages.union(media)))


def _prune(connection: Connection, limit: int) -> None:
    for head in connection.scalars(select(loose_heads.c.entry).limit(limit)).all():
        limit = _prune_path(connection, head, limit)
        if limit <= 0:
            return


def _prune_path(connection: Connection, head: int, limit: int) -> int:
    """Remove what only `head` kept, `limit` entries at most: what is left of the limit."""
    connection.execute(delete(loose_heads).where(loose_heads.c.entry == head))
    entry: int | None = head
    media: list[str] = []
    while entry is not None and limit > 0:
        used = connection.scalars(select(entry_media.c.digest).where(entry_media.c.entry == entry)).all()
        removed = connection.execute(_delete_if_garbage(entry)).one_or_none()
        limit -= 1  # looking costs too
        if removed is None:
            break
        media += used
        entry = removed.parent
    else:
        loosen_head(connection, entry)  # the rest is for the next slice
    loosen_blobs(connection, media)
    return limit


def _delete_if_garbage(entry: int) -> ReturningDelete[tuple[int | None]]:
    child = entries.alias("child")
    return (
        delete(entries)
        .where(
            entries.c.id == entry,
            ~exists().where(child.c.parent == entry),
            ~exists().where(sessions.c.head == entry),
            ~exists().where(checkpoints.c.head == entry),
        )
        .returning(entries.c.parent)
    )


def _any(connection: Connection, table: Table) -> bool:
    return connection.execute(select(table).limit(1)).first() is not None


def _batches(digests: list[str]) -> Iterable[list[str]]:
    return (digests[i : i + _BATCH] for i in range(0, len(digests), _BATCH))
