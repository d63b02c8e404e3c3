"""No field of the contract is lost or mixed up on its way to the caller."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

import holdfast
from holdfast import _convert
from holdfast.v1 import checkpoint_pb2, chunk_pb2, session_pb2, usage_pb2
from holdfast.v1 import session_service_pb2 as pb

TIMESTAMP = "google.protobuf.Timestamp"
DURATION = "google.protobuf.Duration"


def fill(message: Message, numbers: Iterator[int]) -> None:
    """Sets every field to a value of its own."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None:
            _fill_scalar(message, field, next(numbers))
        elif field.message_type.GetOptions().map_entry:
            getattr(message, field.name)["key"] = f"label {next(numbers)}"
        elif field.message_type.full_name in (TIMESTAMP, DURATION):
            getattr(message, field.name).FromMilliseconds(next(numbers))
        else:
            fill(getattr(message, field.name), numbers)


def _fill_scalar(message: Message, field: Any, number: int) -> None:
    value: Any = number
    if field.type == FieldDescriptor.TYPE_STRING:
        value = f"text {number}"
    elif field.type == FieldDescriptor.TYPE_BOOL:
        value = True
    elif field.enum_type is not None:
        value = 1
    if isinstance(getattr(message, field.name), str | int | float | bool):
        setattr(message, field.name, value)
    else:
        getattr(message, field.name).append(value)


def expected(message: Message, field: Any) -> Any:
    """What a client should see of a field, or None where it is a message of its own."""
    value = getattr(message, field.name)
    if field.enum_type is not None:
        return _short(field.enum_type, value).lower()
    if field.message_type is None:
        return value if isinstance(value, str | int | float | bool) else tuple(value)
    if field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.message_type.full_name == TIMESTAMP:
        return datetime.fromtimestamp(value.ToMilliseconds() / 1000, UTC)
    if field.message_type.full_name == DURATION:
        return timedelta(milliseconds=value.ToMilliseconds())
    return None


def _short(enum: EnumDescriptor, number: int) -> str:
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return enum.values_by_number[number].name.removeprefix(prefix)


CONVERSIONS: list[tuple[Message, Any]] = [
    (session_pb2.Session(), _convert.session_info),
    (session_pb2.SamplingParams(), _convert.sampling),
    (usage_pb2.Usage(), _convert.usage),
    (checkpoint_pb2.Checkpoint(), _convert.checkpoint_info),
    (pb.Finish(), _convert.finish),
    (pb.GetServerInfoResponse(), _convert.server_info),
    (pb.Model(), _convert._model_info),
    (pb.Limits(), _convert._limits),
]


@pytest.mark.parametrize(("message", "convert"), CONVERSIONS, ids=lambda x: getattr(x, "__name__", ""))
def test_every_field_arrives(message: Message, convert: Any) -> None:
    fill(message, iter(range(3, 1000)))
    value = convert(message)
    for field in message.DESCRIPTOR.fields:
        wanted = expected(message, field)
        if wanted is None:
            assert dataclasses.is_dataclass(getattr(value, field.name))
        else:
            assert getattr(value, field.name) == wanted, field.name
    extra = {f.name for f in dataclasses.fields(value)} - {f.name for f in message.DESCRIPTOR.fields}
    assert extra <= {"usage"}


ENUMS: list[tuple[type[StrEnum], EnumDescriptor]] = [
    (holdfast.ChatFormat, session_pb2.ChatFormat.DESCRIPTOR),
    (holdfast.Role, chunk_pb2.Role.DESCRIPTOR),
    (holdfast.SessionState, session_pb2.SessionState.DESCRIPTOR),
    (holdfast.Residency, session_pb2.Residency.DESCRIPTOR),
    (holdfast.FinishReason, pb.FinishReason.DESCRIPTOR),
    (holdfast.RestoreMode, checkpoint_pb2.RestoreMode.DESCRIPTOR),
    (holdfast.MemoryKind, pb.MemoryKind.DESCRIPTOR),
]


@pytest.mark.parametrize(("members", "enum"), ENUMS)
def test_enums_have_the_members_of_the_contract(members: type[StrEnum], enum: EnumDescriptor) -> None:
    assert [m.name for m in members] == [_short(enum, value.number) for value in enum.values]
    assert [m.value for m in members] == [m.name.lower() for m in members]


def test_a_number_of_a_later_contract_is_unspecified() -> None:
    message = pb.GetServerInfoResponse()
    message.model.memory_kind = 77  # type: ignore[assignment]
    assert _convert.server_info(message).model.memory_kind is holdfast.MemoryKind.UNSPECIFIED


def test_sampling_options_are_those_of_the_contract() -> None:
    fields = [field.name for field in session_pb2.SamplingParams.DESCRIPTOR.fields]
    assert list(holdfast.SamplingOptions.__annotations__) == fields


def test_unset_sampling_is_none() -> None:
    assert _convert.sampling(session_pb2.SamplingParams()) == holdfast.Sampling()


def test_zero_sampling_is_zero() -> None:
    assert _convert.sampling(session_pb2.SamplingParams(temperature=0.0)).temperature == 0.0
