"""How long sessions and checkpoints live: labels, times to live and pins, changed later."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from holdfast_server.sessions.manager import Sessions
from holdfast_server.sessions.session import SessionView, check_id, check_labels, check_ttl
from holdfast_server.store.catalog import CheckpointRecord


async def update_session(
    sessions: Sessions, owner: str, session_id: str, labels: Mapping[str, str] | None, ttl: int | None
) -> SessionView:
    """Changes what is not None, also while the session generates.

    Event loop only. Errors: SESSION_NOT_FOUND, INVALID_FIELD.
    """
    check_id("session_id", session_id)
    check_labels(labels or {})
    check_ttl(ttl, forever=True)
    record = await sessions.store.catalog.update_session(
        owner, session_id, labels=labels, ttl=ttl, now=time.time_ns()
    )
    live = sessions.registry.peek(owner, session_id)
    if live is not None:  # its writer may be further on than what was read here
        live.record = replace(live.record, labels=record.labels, ttl=record.ttl, expires=record.expires)
    return await sessions.get(owner, session_id)


async def update_checkpoint(
    sessions: Sessions,
    owner: str,
    checkpoint_id: str,
    labels: Mapping[str, str] | None,
    ttl: int | None,
    pinned: bool | None,
) -> CheckpointRecord:
    """Changes what is not None. Event loop only. Errors: CHECKPOINT_NOT_FOUND, INVALID_FIELD."""
    check_id("checkpoint_id", checkpoint_id)
    check_labels(labels or {})
    check_ttl(ttl, forever=True)
    return await sessions.store.catalog.update_checkpoint(
        owner, checkpoint_id, labels=labels, ttl=ttl, pinned=pinned
    )
