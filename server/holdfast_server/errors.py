"""Every error that leaves the server on purpose.

    HoldfastError   a call is refused: a stable reason and a sentence that says what to do
    StartupError    the server cannot start: one line for the operator, exit status 1

`rpc/status.py` is the only place that turns a reason into a gRPC code.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Reason(StrEnum):
    """What clients branch on. Stable forever; never renamed, never reused."""

    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    CHECKPOINT_NOT_FOUND = "CHECKPOINT_NOT_FOUND"
    INVALID_FIELD = "INVALID_FIELD"
    EMPTY_CHUNKS = "EMPTY_CHUNKS"
    UNSUPPORTED_MEDIA = "UNSUPPORTED_MEDIA"
    MEDIA_UNREADABLE = "MEDIA_UNREADABLE"
    CONTEXT_WINDOW_EXCEEDED = "CONTEXT_WINDOW_EXCEEDED"
    MODALITY_NOT_SUPPORTED = "MODALITY_NOT_SUPPORTED"
    MODEL_MISMATCH = "MODEL_MISMATCH"
    NOTHING_TO_GENERATE_FROM = "NOTHING_TO_GENERATE_FROM"
    NO_CHAT_TEMPLATE = "NO_CHAT_TEMPLATE"
    TEMPLATE_FAILED = "TEMPLATE_FAILED"
    NOT_OWN_CHECKPOINT = "NOT_OWN_CHECKPOINT"
    REBUILD_REFUSED = "REBUILD_REFUSED"
    IMPORT_REFUSED = "IMPORT_REFUSED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    STALE_REVISION = "STALE_REVISION"
    SESSION_BUSY = "SESSION_BUSY"
    SESSION_EXISTS = "SESSION_EXISTS"
    CHECKPOINT_EXISTS = "CHECKPOINT_EXISTS"
    SESSION_LIMIT = "SESSION_LIMIT"
    QUEUE_FULL = "QUEUE_FULL"
    SLOW_READER = "SLOW_READER"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    STORE_FULL = "STORE_FULL"
    CHECKPOINT_CORRUPT = "CHECKPOINT_CORRUPT"
    JOURNAL_CORRUPT = "JOURNAL_CORRUPT"
    STARTING = "STARTING"
    DRAINING = "DRAINING"
    LEASE_LOST = "LEASE_LOST"
    INTERNAL = "INTERNAL"


class HoldfastError(Exception):
    """A call is refused.

    `reason` is for programs, the message for people. `field` names the request
    field that is wrong; `metadata` holds facts a client can act on (such as the
    current revision); `retry_after` is in seconds.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


class StartupError(Exception):
    """The server cannot start; the message is one line for the operator."""


def invalid(field: str, message: str) -> HoldfastError:
    """An INVALID_FIELD error about one request field."""
    return HoldfastError(Reason.INVALID_FIELD, f"{field} {message}", field=field)
