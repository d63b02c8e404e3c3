"""What a call can raise, by what the caller can do about it.

    HoldfastError                  any call that failed on the way or at the server
    ├── NotFoundError              the session or checkpoint does not exist
    ├── AlreadyExistsError         the id is taken
    ├── InvalidArgumentError       the request is wrong; `fields` says where
    │   └── MediaError             a picture that cannot be read
    ├── PreconditionError          right request, wrong moment or wrong model
    │   └── ContextWindowError     more tokens than the session can hold
    ├── ConflictError              someone else is at this session
    │   ├── StaleRevisionError     it has moved on: `refresh()` and look
    │   └── SessionBusyError       it is generating: wait for that
    ├── ExhaustedError             a limit; `retry_after` says when to come back
    ├── DataLossError              a session or checkpoint damaged beyond repair
    ├── UnavailableError           no server, or one that starts or drains
    ├── DeadlineError              the call's timeout passed (also a TimeoutError)
    └── ServerError                the server failed; its message holds an error id

Classes are found from the stable reason that the server sends, and from the
gRPC code where a reason is new or absent: never from the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

_M = TypeVar("_M", bound=Message)
_DOMAIN = "holdfast"
_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request, and what is wrong with it."""

    field: str
    description: str


class HoldfastError(Exception):
    """A call failed.

    `str()` is for people. For programs: `code`, the gRPC status; `reason`, the
    server's stable reason, empty where the failure did not come from Holdfast
    itself; `metadata`, facts that belong to the reason; `fields`, what is wrong
    with the request; `retry_after`, seconds the server asks to wait, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        fields: Iterable[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.fields = tuple(fields)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} [{self.reason or self.code.name}]"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, reason={self.reason!r}, code={self.code.name})"


class NotFoundError(HoldfastError):
    """The session or checkpoint does not exist."""


class AlreadyExistsError(HoldfastError):
    """The id is taken."""


class InvalidArgumentError(HoldfastError):
    """The request is wrong whenever it is sent; `fields` says where."""


class MediaError(InvalidArgumentError):
    """A picture is damaged, too large, or of a format the server does not take."""


class PreconditionError(HoldfastError):
    """The request cannot be served in this state or by this model."""


class ContextWindowError(PreconditionError):
    """The session cannot hold so many tokens."""


class ConflictError(HoldfastError):
    """Someone else is at this session; it is as it was before the call."""


class StaleRevisionError(ConflictError):
    """The session is not at the revision that this handle last saw."""

    @property
    def current_revision(self) -> int | None:
        """The revision the session is at, where the server told it."""
        current = self.metadata.get("current_revision", "")
        return int(current) if current.isdecimal() else None


class SessionBusyError(ConflictError):
    """The session is generating."""


class ExhaustedError(HoldfastError):
    """A limit of the server; see `retry_after`."""


class DataLossError(HoldfastError):
    """What a session or checkpoint needs is damaged beyond repair."""


class UnavailableError(HoldfastError):
    """No server answers, or it is starting or draining. A call may have run all the same."""


class DeadlineError(HoldfastError, TimeoutError):
    """The call's timeout passed. The call may have run all the same."""


class ServerError(HoldfastError):
    """The server failed; the message holds an error id to look for in its log."""


_BY_REASON: dict[str, type[HoldfastError]] = {
    "SESSION_NOT_FOUND": NotFoundError,
    "CHECKPOINT_NOT_FOUND": NotFoundError,
    "SESSION_EXISTS": AlreadyExistsError,
    "CHECKPOINT_EXISTS": AlreadyExistsError,
    "INVALID_FIELD": InvalidArgumentError,
    "REQUEST_ID_REUSED": InvalidArgumentError,
    "EMPTY_CHUNKS": InvalidArgumentError,
    "UNSUPPORTED_MEDIA": MediaError,
    "MEDIA_UNREADABLE": MediaError,
    "CONTEXT_WINDOW_EXCEEDED": ContextWindowError,
    "MODALITY_NOT_SUPPORTED": PreconditionError,
    "MODEL_MISMATCH": PreconditionError,
    "NOTHING_TO_GENERATE_FROM": PreconditionError,
    "NO_CHAT_TEMPLATE": PreconditionError,
    "TEMPLATE_FAILED": PreconditionError,
    "NOT_OWN_CHECKPOINT": PreconditionError,
    "REBUILD_REFUSED": PreconditionError,
    "IMPORT_REFUSED": InvalidArgumentError,
    "STALE_REVISION": StaleRevisionError,
    "SESSION_BUSY": SessionBusyError,
    "SESSION_LIMIT": ExhaustedError,
    "QUEUE_FULL": ExhaustedError,
    "SLOW_READER": ExhaustedError,
    "PAYLOAD_TOO_LARGE": ExhaustedError,
    "STORE_FULL": ExhaustedError,
    "CHECKPOINT_CORRUPT": DataLossError,
    "JOURNAL_CORRUPT": DataLossError,
    "STARTING": UnavailableError,
    "DRAINING": UnavailableError,
    "LEASE_LOST": UnavailableError,
    "INTERNAL": ServerError,
}

_BY_CODE: dict[grpc.StatusCode, type[HoldfastError]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExhaustedError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNKNOWN: ServerError,
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> HoldfastError:
    """The exception for a failed call."""
    details = _details(error)
    info = _detail(details, error_details_pb2.ErrorInfo())
    bad_request = _detail(details, error_details_pb2.BadRequest())
    retry = _detail(details, error_details_pb2.RetryInfo())
    reason = info.reason if info and info.domain == _DOMAIN else ""
    cls = _BY_REASON.get(reason) or _BY_CODE.get(error.code(), HoldfastError)
    return cls(
        error.details() or error.code().name,
        code=error.code(),
        reason=reason,
        metadata=info.metadata if info else None,
        fields=[FieldViolation(v.field, v.description) for v in bad_request.field_violations]
        if bad_request
        else (),
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
    )


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The google.rpc.Status behind an error; empty when there is none or a proxy mangled it."""
    metadata = cast("grpc.aio.Metadata", error.trailing_metadata())  # the stubs know the synchronous type
    try:
        return status_pb2.Status.FromString(metadata.get(_DETAILS_KEY, b""))
    except DecodeError:
        return status_pb2.Status()


def _detail(status: status_pb2.Status, into: _M) -> _M | None:
    """The first detail of `into`'s type."""
    for packed in status.details:
        if packed.Is(into.DESCRIPTOR):
            try:
                packed.Unpack(into)
            except DecodeError:
                return None
            return into
    return None
