"""Protobuf messages to domain values and back: the only place that knows both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.v1 import checkpoint_pb2, chunk_pb2, session_pb2, session_service_pb2, transfer_pb2, usage_pb2
from holdfast_server.engine.api import EngineInfo, Piece, StopCause
from holdfast_server.errors import HoldfastError, Reason, invalid
from holdfast_server.sessions.checkpoints import CheckpointSpec
from holdfast_server.sessions.exporting import Frame
from holdfast_server.sessions.generation import Event
from holdfast_server.sessions.importing import Imported, Part
from holdfast_server.sessions.limits import Limits
from holdfast_server.sessions.session import (
    ChatFormat,
    Chunk,
    ImageChunk,
    Role,
    Sampling,
    SessionView,
    State,
    TextChunk,
    Usage,
)
from holdfast_server.store.catalog import CheckpointRecord

_ROLES = {
    chunk_pb2.ROLE_UNSPECIFIED: None,
    chunk_pb2.ROLE_SYSTEM: Role.SYSTEM,
    chunk_pb2.ROLE_USER: Role.USER,
    chunk_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    chunk_pb2.ROLE_TOOL: Role.TOOL,
}
_FORMATS = {
    session_pb2.CHAT_FORMAT_UNSPECIFIED: None,
    session_pb2.CHAT_FORMAT_TEMPLATE: ChatFormat.TEMPLATE,
    session_pb2.CHAT_FORMAT_RAW: ChatFormat.RAW,
}
_FORMATS_OUT = {value: key for key, value in _FORMATS.items()}
_STATES = {
    State.IDLE: session_pb2.SESSION_STATE_IDLE,
    State.PREFILLING: session_pb2.SESSION_STATE_PREFILLING,
    State.GENERATING: session_pb2.SESSION_STATE_GENERATING,
}
_CAUSES = {
    StopCause.END_OF_TURN: session_service_pb2.FINISH_REASON_END_OF_TURN,
    StopCause.STOP_STRING: session_service_pb2.FINISH_REASON_STOP_STRING,
    StopCause.MAX_TOKENS: session_service_pb2.FINISH_REASON_MAX_TOKENS,
    StopCause.CONTEXT_FULL: session_service_pb2.FINISH_REASON_CONTEXT_FULL,
    StopCause.CANCELLED: session_service_pb2.FINISH_REASON_CANCELLED,
}
_MEMORY_KINDS = {"plain": session_service_pb2.MEMORY_KIND_PLAIN}
_SAMPLING_FIELDS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100


def chat_format(value: session_pb2.ChatFormat.ValueType) -> ChatFormat | None:
    """None for unspecified. Raises INVALID_FIELD for a number that this version does not know."""
    if value not in _FORMATS:
        raise invalid("chat_format", "is not one this server knows")
    return _FORMATS[value]


def chunks(messages: Sequence[chunk_pb2.Chunk]) -> list[Chunk]:
    """Raises INVALID_FIELD for unknown roles, EMPTY_CHUNKS for a chunk with nothing in it."""
    return [_chunk(f"chunks[{index}]", message) for index, message in enumerate(messages)]


def _chunk(field: str, message: chunk_pb2.Chunk) -> Chunk:
    if message.role not in _ROLES:
        raise invalid(f"{field}.role", "is not one this server knows")
    role = _ROLES[message.role]
    part = message.WhichOneof("part")
    if part == "text":
        return TextChunk(role, message.text, message.parse_special)
    if part == "image":
        return ImageChunk(role, message.image.data, message.image.mime_type)
    raise HoldfastError(Reason.EMPTY_CHUNKS, f"{field} has no part; set text or image", field=field)


def sampling(message: session_pb2.SamplingParams) -> Sampling:
    """Unset fields become None, an empty list of stop strings too."""
    values = {name: getattr(message, name) for name in _SAMPLING_FIELDS if message.HasField(name)}  # type: ignore[arg-type]
    return Sampling(**values, stop=tuple(message.stop) or None)


def ttl(message: Message) -> int | None:
    """Nanoseconds of the `ttl` field, None when it is unset. Raises INVALID_FIELD for what is no duration."""
    if not message.HasField("ttl"):
        return None
    try:
        nanoseconds: int = message.ttl.ToNanoseconds()  # type: ignore[attr-defined]
    except ValueError as error:
        raise invalid("ttl", "is not a duration") from error
    if nanoseconds <= 0:  # zero has a meaning of its own further in
        raise invalid("ttl", "must be from 1 second to 10 years")
    return nanoseconds


@dataclass(frozen=True, slots=True)
class Changes:
    """What an Update call asks for; None leaves a field as it is, a `ttl` of 0 is for ever."""

    labels: dict[str, str] | None
    ttl: int | None
    pinned: bool | None


def changes(message: Any, known: Sequence[str]) -> Changes:
    """The fields that the mask names, or where it is empty those that are set.

    Raises INVALID_FIELD for paths that are not `known`.
    """
    paths = set(message.update_mask.paths) or {field.name for field, _ in message.ListFields()}
    if unknown := set(message.update_mask.paths) - {*known, "*"}:
        raise invalid("update_mask", f"may name {', '.join(known)} or *, not {min(unknown)[:64]!r}")
    chosen = set(known) if "*" in paths else paths
    return Changes(
        labels=dict(message.labels) if "labels" in chosen else None,
        ttl=(ttl(message) or 0) if "ttl" in chosen else None,
        pinned=message.pinned if "pinned" in chosen else None,
    )


def checkpoint_spec(request: session_service_pb2.CheckpointRequest) -> CheckpointSpec:
    """What a client wants of a checkpoint."""
    return CheckpointSpec(
        checkpoint_id=request.checkpoint_id,
        labels=request.labels,
        ttl=ttl(request),
        pinned=request.pinned,
        request_id=request.request_id,
    )


def page_size(value: int) -> int:
    """Raises INVALID_FIELD outside 0 to 1,000; 0 is the server's choice."""
    if not 0 <= value <= MAX_PAGE_SIZE:
        raise invalid("page_size", f"must be from 0 to {MAX_PAGE_SIZE}")
    return value or DEFAULT_PAGE_SIZE


def session(view: SessionView) -> session_pb2.Session:
    """A session as it goes over the wire."""
    record, choice = view.record, view.settings.sampling
    resident, cold = session_pb2.RESIDENCY_RESIDENT, session_pb2.RESIDENCY_COLD
    return session_pb2.Session(
        session_id=record.session_id,
        revision=record.revision,
        position=record.position,
        token_count=record.token_count,
        state=_STATES[view.state],
        residency=resident if view.resident else cold,
        chat_format=_FORMATS_OUT[view.settings.chat_format],
        sampling=_sampling_out(choice),
        labels=record.labels,
        create_time=_timestamp(record.created),
        update_time=_timestamp(record.updated),
        model=record.model,
        ttl=None if record.ttl is None else _span(record.ttl),
        expire_time=None if record.expires is None else _timestamp(record.expires),
    )


def _sampling_out(choice: Sampling) -> session_pb2.SamplingParams:
    values = {name: v for name in _SAMPLING_FIELDS if (v := getattr(choice, name)) is not None}
    return session_pb2.SamplingParams(**values, stop=choice.stop or ())


def checkpoint(record: CheckpointRecord) -> checkpoint_pb2.Checkpoint:
    """A checkpoint as it goes over the wire."""
    return checkpoint_pb2.Checkpoint(
        checkpoint_id=record.checkpoint_id,
        session_id=record.session_id,
        revision=record.revision,
        position=record.position,
        token_count=record.token_count,
        page_count=record.page_count,
        raw_bytes=record.raw_bytes,
        stored_bytes=record.stored_bytes,
        labels=record.labels,
        create_time=_timestamp(record.created),
        model=record.model,
        compatibility_key=record.compatibility_key,
        expire_time=None if record.expires is None else _timestamp(record.expires),
        pinned=record.pinned,
    )


def frame(value: Frame) -> transfer_pb2.ExportCheckpointResponse:
    """A part of an exported file."""
    return transfer_pb2.ExportCheckpointResponse(
        offset=value.offset, data=value.data, total_bytes=value.total_bytes, digest=value.digest
    )


async def parts(messages: AsyncIterator[transfer_pb2.ImportCheckpointRequest]) -> AsyncIterator[Part]:
    """The parts of a file that is imported."""
    async for message in messages:
        yield Part(message.upload_id, message.offset, message.data, message.complete, message.checkpoint_id)


def imported(value: Imported) -> transfer_pb2.ImportCheckpointResponse:
    """What became of an import."""
    return transfer_pb2.ImportCheckpointResponse(
        received_bytes=value.received_bytes,
        checkpoint=checkpoint(value.checkpoint) if value.checkpoint else None,
        pages_imported=value.pages_imported,
    )


def usage(cost: Usage) -> usage_pb2.Usage:
    """What a call cost, as it goes over the wire."""
    return usage_pb2.Usage(
        prompt_tokens=cost.prompt_tokens,
        cached_tokens=cost.cached_tokens,
        prefilled_tokens=cost.prefilled_tokens,
        restored_tokens=cost.restored_tokens,
        generated_tokens=cost.generated_tokens,
        media_encoded=cost.media_encoded,
        media_reused=cost.media_reused,
        pages_written=cost.pages_written,
        raw_bytes=cost.raw_bytes,
        stored_bytes=cost.stored_bytes,
        queue_time=_duration(cost.queue_seconds),
        encode_time=_duration(cost.encode_seconds),
        prefill_time=_duration(cost.prefill_seconds),
        decode_time=_duration(cost.decode_seconds),
        state_time=_duration(cost.state_seconds),
        store_time=_duration(cost.store_seconds),
        total_time=_duration(cost.total_seconds),
    )


def event(value: Event) -> session_service_pb2.GenerateResponse:
    """One event of a generation."""
    if isinstance(value, Piece):
        delta = session_service_pb2.Delta(text=value.text, token_ids=value.tokens)
        return session_service_pb2.GenerateResponse(delta=delta)
    finish = session_service_pb2.Finish(
        reason=_CAUSES[value.cause],
        matched_stop=value.matched_stop,
        session=session(value.session),
        usage=usage(value.usage),
    )
    return session_service_pb2.GenerateResponse(finish=finish)


def model(info: EngineInfo) -> session_service_pb2.Model:
    """The served model."""
    return session_service_pb2.Model(
        name=info.model_name,
        description=info.model_description,
        parameter_count=info.parameter_count,
        trained_context_tokens=info.trained_context,
        memory_kind=_MEMORY_KINDS[info.memory_kind],
        vision=info.vision,
        chat_template=info.chat_template is not None,
    )


def limits(bounds: Limits, info: EngineInfo) -> session_service_pb2.Limits:
    """What clients may ask for."""
    return session_service_pb2.Limits(
        context_tokens=info.cells,
        media_bytes=bounds.media_bytes,
        media_pixels=bounds.media_pixels,
        chunks_per_append=bounds.chunks_per_append,
        message_bytes=bounds.message_bytes,
        sessions=bounds.sessions,
    )


def _timestamp(nanoseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(nanoseconds)
    return stamp


def _span(nanoseconds: int) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(nanoseconds)
    return duration


def _duration(seconds: float) -> Duration:
    return _span(int(seconds * 1e9))
