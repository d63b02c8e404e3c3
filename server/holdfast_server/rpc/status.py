"""Errors to gRPC statuses: the one table, the one place."""

from __future__ import annotations

import logging
import secrets
from datetime import timedelta

import grpc
from google.protobuf.any_pb2 import Any as PbAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from holdfast_server.errors import HoldfastError, Reason

DOMAIN = "holdfast"

CODES: dict[Reason, int] = {
    Reason.SESSION_NOT_FOUND: code_pb2.NOT_FOUND,
    Reason.CHECKPOINT_NOT_FOUND: code_pb2.NOT_FOUND,
    Reason.INVALID_FIELD: code_pb2.INVALID_ARGUMENT,
    Reason.EMPTY_CHUNKS: code_pb2.INVALID_ARGUMENT,
    Reason.UNSUPPORTED_MEDIA: code_pb2.INVALID_ARGUMENT,
    Reason.MEDIA_UNREADABLE: code_pb2.INVALID_ARGUMENT,
    Reason.CONTEXT_WINDOW_EXCEEDED: code_pb2.FAILED_PRECONDITION,
    Reason.MODALITY_NOT_SUPPORTED: code_pb2.FAILED_PRECONDITION,
    Reason.MODEL_MISMATCH: code_pb2.FAILED_PRECONDITION,
    Reason.NOTHING_TO_GENERATE_FROM: code_pb2.FAILED_PRECONDITION,
    Reason.NO_CHAT_TEMPLATE: code_pb2.FAILED_PRECONDITION,
    Reason.TEMPLATE_FAILED: code_pb2.FAILED_PRECONDITION,
    Reason.REBUILD_REFUSED: code_pb2.FAILED_PRECONDITION,
    Reason.NOT_OWN_CHECKPOINT: code_pb2.FAILED_PRECONDITION,
    Reason.IMPORT_REFUSED: code_pb2.INVALID_ARGUMENT,
    Reason.REQUEST_ID_REUSED: code_pb2.INVALID_ARGUMENT,
    Reason.STALE_REVISION: code_pb2.ABORTED,
    Reason.SESSION_BUSY: code_pb2.ABORTED,
    Reason.SESSION_EXISTS: code_pb2.ALREADY_EXISTS,
    Reason.CHECKPOINT_EXISTS: code_pb2.ALREADY_EXISTS,
    Reason.SESSION_LIMIT: code_pb2.RESOURCE_EXHAUSTED,
    Reason.QUEUE_FULL: code_pb2.RESOURCE_EXHAUSTED,
    Reason.SLOW_READER: code_pb2.RESOURCE_EXHAUSTED,
    Reason.PAYLOAD_TOO_LARGE: code_pb2.RESOURCE_EXHAUSTED,
    Reason.STORE_FULL: code_pb2.RESOURCE_EXHAUSTED,
    Reason.CHECKPOINT_CORRUPT: code_pb2.DATA_LOSS,
    Reason.JOURNAL_CORRUPT: code_pb2.DATA_LOSS,
    Reason.STARTING: code_pb2.UNAVAILABLE,
    Reason.DRAINING: code_pb2.UNAVAILABLE,
    Reason.LEASE_LOST: code_pb2.UNAVAILABLE,
    Reason.INTERNAL: code_pb2.INTERNAL,
}

_logger = logging.getLogger("holdfast.rpc")


def to_status(error: HoldfastError) -> grpc.Status:
    """The rich status: canonical code, ErrorInfo, and BadRequest or RetryInfo where they apply."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(timedelta(seconds=error.retry_after))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        holder = PbAny()
        holder.Pack(detail)
        packed.append(holder)
    status = status_pb2.Status(code=CODES[error.reason], message=error.message, details=packed)
    return rpc_status.to_status(status)


def to_error(error: Exception) -> HoldfastError:
    """What the client is told about an exception.

    What nobody foresaw becomes INTERNAL with an error id; its own text stays in the
    log, since it may hold paths, addresses or prompts.
    """
    if isinstance(error, HoldfastError):
        return error
    error_id = secrets.token_hex(6)
    _logger.error("internal error %s", error_id, exc_info=error)
    return HoldfastError(
        Reason.INTERNAL,
        f"the server failed on this call; its operator finds the cause in the log under {error_id}",
        metadata={"error_id": error_id},
    )
