"""What a collection would delete, without deleting it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from holdfast_server.store import sql_checkpoints, sql_collect, sql_sessions

_SLICE = 256


@dataclass(frozen=True, slots=True)
class Doomed:
    """What has expired, and the blobs that nothing needs then."""

    sessions: int
    checkpoints: int
    blobs: tuple[str, ...]


def expire(connection: Connection, now: int) -> Doomed:
    """Remove what has expired from the catalog, and with it all notes for collection."""
    sessions = checkpoints = 0
    while expired := sql_sessions.expired(connection, now, _SLICE):
        for record in expired:
            sessions += sql_sessions.remove(connection, record.owner, record.session_id)
    while dropped := sql_checkpoints.drop_expired(connection, now, _SLICE):
        checkpoints += dropped
    blobs: list[str] = []
    more = True
    while more:
        part = sql_collect.unreferenced(connection, _SLICE)
        blobs += part.digests
        more = part.more
    return Doomed(sessions, checkpoints, tuple(blobs))
