"""SQL of checking: whether the catalog agrees with itself, slice by slice.

Every entry's chain digest is computed again from its parent's, so that a pass
over all entries verifies every journal. Every function runs inside the
caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Row, Select, func, literal, or_, select

from holdfast_server.store import sql_journal
from holdfast_server.store.catalog import Checked, Cost, Problem, Reference
from holdfast_server.store.digest import keyed_bytes, keyed_digest
from holdfast_server.store.schema import (
    checkpoint_pages,
    checkpoints,
    entries,
    entry_media,
    loose_heads,
    sessions,
)

_MOST = 100  # sessions named at most


def check(connection: Connection, place: tuple[int, int], limit: int) -> Checked:
    """One slice: of entries, then of checkpoints, then all sessions."""
    stage, after = place
    problems, last = _STAGES[stage](connection, after, limit)
    if last is not None:
        return Checked(tuple(problems), (stage, last))
    return Checked(tuple(problems), (stage + 1, 0) if stage + 1 < len(_STAGES) else None)


def references(connection: Connection, after: str, limit: int) -> list[Reference]:
    """The next blobs that pages and media name, each once."""
    pages = select(checkpoint_pages.c.digest, checkpoints.c.owner, literal(False).label("media")).join(
        checkpoints, checkpoints.c.row == checkpoint_pages.c.checkpoint
    )
    media = select(entry_media.c.digest, entries.c.owner, literal(True).label("media")).join(
        entries, entries.c.id == entry_media.c.entry
    )
    both = [
        chosen.where(chosen.selected_columns.digest > after).distinct().order_by("digest").limit(limit)
        for chosen in (pages, media)
    ]
    found = [
        Reference(row.digest, row.owner, row.media) for chosen in both for row in connection.execute(chosen)
    ]
    return sorted(found, key=lambda reference: reference.digest)[:limit]


def holders(connection: Connection, reference: Reference) -> str:
    """Who needs a blob."""
    if reference.media:
        return _holders_of_media(connection, reference.digest)
    return _holders_of_page(connection, reference.digest)


def _holders_of_page(connection: Connection, digest: str) -> str:
    chosen = select(checkpoints.c.checkpoint_id).join(checkpoint_pages)
    names = connection.scalars(chosen.where(checkpoint_pages.c.digest == digest).distinct()).all()
    return _listed([f"checkpoint {name}" for name in sorted(names)])


def _holders_of_media(connection: Connection, digest: str) -> str:
    chosen = select(entry_media.c.entry).where(entry_media.c.digest == digest)
    names = {name for entry in connection.scalars(chosen).all() for name in _below(connection, entry)}
    return _listed(sorted(names))


def _entries(connection: Connection, after: int, limit: int) -> tuple[list[Problem], int | None]:
    above = entries.alias("above")
    chosen = (
        select(entries, above.c.id, above.c.owner, above.c.revision, above.c.chain)
        .outerjoin(above, above.c.id == entries.c.parent)
        .where(entries.c.id > after)
        .order_by(entries.c.id)
        .limit(limit)
    )
    rows = connection.execute(chosen).all()
    problems = []
    keys: dict[str, bytes | None] = {}
    for row in rows:
        if row.owner not in keys:
            keys[row.owner] = sql_journal.owner_key(connection, row.owner)
        for fault in _faults(row, keys[row.owner]):
            names = _listed(sorted(_below(connection, row.id)))
            problems.append(Problem(Cost.DATA, f"journal entry {row.revision} {fault}: {names}"))
    if rows:
        problems += _forgotten(connection, after, rows[-1].id)
    return problems, rows[-1].id if len(rows) == limit else None


def _faults(row: Row[Any], key: bytes | None) -> Iterator[str]:
    """What is wrong with an entry, beside its parent's id, owner, revision and chain."""
    entry_id, owner, parent, revision, chain, payload = row[:6]
    above_id, above_owner, above_revision, above_chain = row[6:]
    if key is None:
        yield "has an owner without a key"
    elif keyed_bytes(key, above_chain or b"", payload) != chain:
        yield "was altered"
    if parent is not None and (above_id is None or above_owner != owner):
        yield "has lost the entry before it"
    elif revision != (above_revision or 0) + 1:
        yield f"(number {entry_id}) is out of order"


def _forgotten(connection: Connection, after: int, last: int) -> list[Problem]:
    """Entries that nothing needs and that no collection will look at."""
    child = entries.alias("child")
    needed = [child.c.parent, sessions.c.head, checkpoints.c.head, loose_heads.c.entry]
    chosen = select(entries.c.id).where(entries.c.id > after, entries.c.id <= last)
    for column in needed:
        chosen = chosen.where(~select(column).where(column == entries.c.id).exists())
    found = connection.scalars(chosen.limit(_MOST)).all()
    return [Problem(Cost.SPACE, f"journal entry number {number} is kept for nobody") for number in found]


def _checkpoints(connection: Connection, after: int, limit: int) -> tuple[list[Problem], int | None]:
    counted = select(func.count()).where(checkpoint_pages.c.checkpoint == checkpoints.c.row).scalar_subquery()
    chosen = (
        select(checkpoints, counted.label("references"), entries.c.revision.label("head_revision"))
        .outerjoin(entries, entries.c.id == checkpoints.c.head)
        .where(checkpoints.c.row > after)
        .order_by(checkpoints.c.row)
        .limit(min(limit, 50))  # manifests are large
    )
    rows = connection.execute(chosen).all()
    problems = []
    for row in rows:
        key = sql_journal.owner_key(connection, row.owner)
        if key is None or keyed_digest(key, row.manifest) != row.manifest_digest:
            problems.append(Problem(Cost.TIME, f"a manifest was altered: checkpoint {row.checkpoint_id}"))
        if row.page_count != row.references:
            text = f"{row.references} pages are counted, not {row.page_count}: checkpoint {row.checkpoint_id}"
            problems.append(Problem(Cost.TIME, text))
        if row.revision != (row.head_revision or 0):
            problems.append(Problem(Cost.DATA, f"the journal is missing: checkpoint {row.checkpoint_id}"))
    return problems, rows[-1].row if len(rows) == min(limit, 50) else None


def _sessions(connection: Connection, _after: int, _limit: int) -> tuple[list[Problem], int | None]:
    chosen = (
        select(sessions.c.session_id)
        .outerjoin(entries, entries.c.id == sessions.c.head)
        .where(
            or_(
                sessions.c.revision != func.coalesce(entries.c.revision, 0),
                (entries.c.owner != sessions.c.owner),
            )
        )
        .limit(_MOST)
    )
    names = connection.scalars(chosen).all()
    return [Problem(Cost.DATA, f"the journal is missing: session {name}") for name in names], None


_Stage = Callable[[Connection, int, int], tuple[list[Problem], int | None]]
_STAGES: tuple[_Stage, ...] = (_entries, _checkpoints, _sessions)


def _below(connection: Connection, entry: int) -> set[str]:
    """The sessions and checkpoints whose journals hold an entry."""
    start = select(entries.c.id).where(entries.c.id == entry).cte("below", recursive=True)
    below = start.union(select(entries.c.id).where(entries.c.parent == start.c.id))

    def named(table: Any, column: Any) -> Select[Any]:
        return select(column).where(table.c.head.in_(select(below.c.id))).distinct()

    found = {f"session {name}" for name in connection.scalars(named(sessions, sessions.c.session_id))}
    taken = connection.scalars(named(checkpoints, checkpoints.c.checkpoint_id))
    return found | {f"checkpoint {name}" for name in taken}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return (", ".join(names[:_MOST]) or "nobody") + more
