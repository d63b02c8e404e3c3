"""Between the contract's messages and the client's values: the only place that knows both."""

from __future__ import annotations

from datetime import UTC, timedelta
from enum import StrEnum
from typing import TypeVar

from google.protobuf import duration_pb2, field_mask_pb2
from google.protobuf.descriptor import EnumDescriptor

from holdfast._types import (
    ChatFormat,
    CheckpointInfo,
    Delta,
    Finish,
    FinishReason,
    Limits,
    MemoryKind,
    ModelInfo,
    Residency,
    RestoreMode,
    Role,
    Sampling,
    SamplingOptions,
    ServerInfo,
    SessionInfo,
    SessionState,
    Usage,
)
from holdfast.v1 import checkpoint_pb2, chunk_pb2, session_pb2, session_service_pb2, usage_pb2

_E = TypeVar("_E", bound=StrEnum)
_SAMPLING_FIELDS = frozenset(SamplingOptions.__annotations__)


def _member(cls: type[_E], enum: EnumDescriptor, number: int) -> _E:
    """The member for a number; UNSPECIFIED for one that only a newer contract knows."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    value = enum.values_by_number.get(number)
    return cls[value.name.removeprefix(prefix) if value else "UNSPECIFIED"]


def chat_format_to_pb(chat_format: str | None) -> session_pb2.ChatFormat.ValueType:
    """Raises ValueError for a name that is no chat format."""
    member = ChatFormat.UNSPECIFIED if chat_format is None else ChatFormat(chat_format)
    return session_pb2.ChatFormat.Value(f"CHAT_FORMAT_{member.name}")


def role_to_pb(role: str | None) -> chunk_pb2.Role.ValueType:
    """Raises ValueError for a name that is no role."""
    member = Role.UNSPECIFIED if role is None else Role(role)
    return chunk_pb2.Role.Value(f"ROLE_{member.name}")


def sampling_to_pb(options: SamplingOptions) -> session_pb2.SamplingParams:
    """Raises TypeError for an option that does not exist, as any call does for unknown arguments."""
    if unknown := options.keys() - _SAMPLING_FIELDS:
        raise TypeError(f"no such sampling option: {', '.join(sorted(unknown))}")
    return session_pb2.SamplingParams(**options)


def duration_to_pb(span: timedelta | None) -> duration_pb2.Duration | None:
    if span is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromTimedelta(span)
    return duration


def changed(**fields: object) -> field_mask_pb2.FieldMask:
    """A mask of the fields that are given: not None, not False."""
    return field_mask_pb2.FieldMask(paths=[name for name, value in fields.items() if value])


def sampling(pb: session_pb2.SamplingParams) -> Sampling:
    """Presence becomes None."""
    return Sampling(
        max_tokens=pb.max_tokens if pb.HasField("max_tokens") else None,
        temperature=pb.temperature if pb.HasField("temperature") else None,
        top_p=pb.top_p if pb.HasField("top_p") else None,
        top_k=pb.top_k if pb.HasField("top_k") else None,
        min_p=pb.min_p if pb.HasField("min_p") else None,
        repeat_penalty=pb.repeat_penalty if pb.HasField("repeat_penalty") else None,
        frequency_penalty=pb.frequency_penalty if pb.HasField("frequency_penalty") else None,
        presence_penalty=pb.presence_penalty if pb.HasField("presence_penalty") else None,
        seed=pb.seed if pb.HasField("seed") else None,
        stop=tuple(pb.stop),
    )


def session_info(pb: session_pb2.Session) -> SessionInfo:
    return SessionInfo(
        session_id=pb.session_id,
        revision=pb.revision,
        position=pb.position,
        token_count=pb.token_count,
        state=_member(SessionState, session_pb2.SessionState.DESCRIPTOR, pb.state),
        residency=_member(Residency, session_pb2.Residency.DESCRIPTOR, pb.residency),
        chat_format=_member(ChatFormat, session_pb2.ChatFormat.DESCRIPTOR, pb.chat_format),
        sampling=sampling(pb.sampling),
        labels=dict(pb.labels),
        create_time=pb.create_time.ToDatetime(UTC),
        update_time=pb.update_time.ToDatetime(UTC),
        model=pb.model,
        ttl=pb.ttl.ToTimedelta() if pb.HasField("ttl") else None,
        expire_time=pb.expire_time.ToDatetime(UTC) if pb.HasField("expire_time") else None,
    )


def usage(pb: usage_pb2.Usage) -> Usage:
    return Usage(
        prompt_tokens=pb.prompt_tokens,
        cached_tokens=pb.cached_tokens,
        prefilled_tokens=pb.prefilled_tokens,
        restored_tokens=pb.restored_tokens,
        generated_tokens=pb.generated_tokens,
        media_encoded=pb.media_encoded,
        media_reused=pb.media_reused,
        pages_written=pb.pages_written,
        raw_bytes=pb.raw_bytes,
        stored_bytes=pb.stored_bytes,
        queue_time=pb.queue_time.ToTimedelta(),
        encode_time=pb.encode_time.ToTimedelta(),
        prefill_time=pb.prefill_time.ToTimedelta(),
        decode_time=pb.decode_time.ToTimedelta(),
        state_time=pb.state_time.ToTimedelta(),
        store_time=pb.store_time.ToTimedelta(),
        total_time=pb.total_time.ToTimedelta(),
    )


def checkpoint_info(pb: checkpoint_pb2.Checkpoint, cost: usage_pb2.Usage | None = None) -> CheckpointInfo:
    return CheckpointInfo(
        checkpoint_id=pb.checkpoint_id,
        session_id=pb.session_id,
        revision=pb.revision,
        position=pb.position,
        token_count=pb.token_count,
        page_count=pb.page_count,
        raw_bytes=pb.raw_bytes,
        stored_bytes=pb.stored_bytes,
        labels=dict(pb.labels),
        create_time=pb.create_time.ToDatetime(UTC),
        model=pb.model,
        compatibility_key=pb.compatibility_key,
        expire_time=pb.expire_time.ToDatetime(UTC) if pb.HasField("expire_time") else None,
        pinned=pb.pinned,
        usage=usage(cost) if cost is not None else None,
    )


def restore_mode(number: int) -> RestoreMode:
    return _member(RestoreMode, checkpoint_pb2.RestoreMode.DESCRIPTOR, number)


def delta(pb: session_service_pb2.Delta) -> Delta:
    return Delta(pb.text, tuple(pb.token_ids))


def finish(pb: session_service_pb2.Finish) -> Finish:
    return Finish(
        reason=_member(FinishReason, session_service_pb2.FinishReason.DESCRIPTOR, pb.reason),
        matched_stop=pb.matched_stop,
        session=session_info(pb.session),
        usage=usage(pb.usage),
    )


def server_info(pb: session_service_pb2.GetServerInfoResponse) -> ServerInfo:
    return ServerInfo(
        version=pb.version,
        llama_cpp_version=pb.llama_cpp_version,
        model=_model_info(pb.model),
        limits=_limits(pb.limits),
        slot_count=pb.slot_count,
        cell_count=pb.cell_count,
        compatibility_key=pb.compatibility_key,
    )


def _model_info(pb: session_service_pb2.Model) -> ModelInfo:
    return ModelInfo(
        name=pb.name,
        description=pb.description,
        parameter_count=pb.parameter_count,
        trained_context_tokens=pb.trained_context_tokens,
        memory_kind=_member(MemoryKind, session_service_pb2.MemoryKind.DESCRIPTOR, pb.memory_kind),
        vision=pb.vision,
        chat_template=pb.chat_template,
    )


def _limits(pb: session_service_pb2.Limits) -> Limits:
    return Limits(
        context_tokens=pb.context_tokens,
        media_bytes=pb.media_bytes,
        media_pixels=pb.media_pixels,
        chunks_per_append=pb.chunks_per_append,
        message_bytes=pb.message_bytes,
        sessions=pb.sessions,
    )
