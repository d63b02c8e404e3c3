"""Short ways to call the service in tests, and pictures to send."""

from __future__ import annotations

import io
from collections.abc import Awaitable
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from holdfast.v1 import chunk_pb2, session_pb2, session_service_pb2

pb = session_service_pb2
RAW = session_pb2.CHAT_FORMAT_RAW
GREEDY = session_pb2.SamplingParams(temperature=0, max_tokens=12)


def png(seed: int = 0, size: tuple[int, int] = (48, 40)) -> bytes:
    """A PNG of coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return save(Image.fromarray(pixels))


def save(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def text(value: str, role: chunk_pb2.Role.ValueType = chunk_pb2.ROLE_USER) -> chunk_pb2.Chunk:
    """A chunk of text."""
    return chunk_pb2.Chunk(role=role, text=value)


def image(data: bytes, role: chunk_pb2.Role.ValueType = chunk_pb2.ROLE_USER) -> chunk_pb2.Chunk:
    """A chunk that is a picture."""
    return chunk_pb2.Chunk(role=role, image=chunk_pb2.Media(data=data))


def raw(value: str | bytes) -> chunk_pb2.Chunk:
    """A chunk for a raw session: text, or a picture's file."""
    if isinstance(value, str):
        return chunk_pb2.Chunk(text=value)
    return chunk_pb2.Chunk(image=chunk_pb2.Media(data=value))


async def create(stub: Any, session_id: str = "a", **fields: Any) -> session_pb2.Session:
    """Creates a session."""
    reply = await stub.CreateSession(pb.CreateSessionRequest(session_id=session_id, **fields))
    session: session_pb2.Session = reply.session
    return session


async def append(
    stub: Any, *chunks: chunk_pb2.Chunk, session_id: str = "a", **fields: Any
) -> pb.AppendChunksResponse:
    """Appends chunks."""
    request = pb.AppendChunksRequest(session_id=session_id, chunks=chunks, **fields)
    reply: pb.AppendChunksResponse = await stub.AppendChunks(request)
    return reply


async def generate(
    stub: Any, session_id: str = "a", sampling: session_pb2.SamplingParams = GREEDY, **fields: Any
) -> tuple[str, list[int], pb.Finish]:
    """Generates to the end: text, token ids, finish."""
    pieces, tokens, finish = [], [], None
    request = pb.GenerateRequest(session_id=session_id, sampling=sampling, **fields)
    async for event in stub.Generate(request):
        assert finish is None, "nothing comes after the finish"
        if event.HasField("finish"):
            finish = event.finish
        else:
            pieces.append(event.delta.text)
            tokens.extend(event.delta.token_ids)
    assert finish is not None
    return "".join(pieces), tokens, finish


async def checkpoint(
    stub: Any, session_id: str = "a", checkpoint_id: str = "c", **fields: Any
) -> pb.CheckpointResponse:
    """Takes a checkpoint."""
    request = pb.CheckpointRequest(session_id=session_id, checkpoint_id=checkpoint_id, **fields)
    reply: pb.CheckpointResponse = await stub.Checkpoint(request)
    return reply


async def restore(stub: Any, new: str = "b", checkpoint_id: str = "c") -> pb.RestoreResponse:
    """Restores a checkpoint into a new session."""
    request = pb.RestoreRequest(checkpoint_id=checkpoint_id, new_session_id=new)
    reply: pb.RestoreResponse = await stub.Restore(request)
    return reply


async def roll_back(stub: Any, session_id: str = "a", checkpoint_id: str = "c") -> pb.RestoreResponse:
    """Rolls a session back to a checkpoint."""
    request = pb.RestoreRequest(checkpoint_id=checkpoint_id, rollback_session_id=session_id)
    reply: pb.RestoreResponse = await stub.Restore(request)
    return reply


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, grpc.aio.AioRpcError]:
    """The code and reason that a call is refused with; fails when it succeeds."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), reason(error), error
    raise AssertionError("the call was not refused")


def reason(error: grpc.aio.AioRpcError) -> str:
    """The ErrorInfo reason of a refused call."""
    return str(info(error).reason)


def info(error: grpc.aio.AioRpcError) -> Any:
    """The ErrorInfo of a refused call; fails when there is none."""
    found = detail(error, error_details_pb2.ErrorInfo())
    assert found.domain == "holdfast"
    return found


def field(error: grpc.aio.AioRpcError) -> str:
    """The request field that BadRequest names."""
    return str(detail(error, error_details_pb2.BadRequest()).field_violations[0].field)


def detail(error: grpc.aio.AioRpcError, into: Any) -> Any:
    """The detail of a refused call of the kind of `into`; fails when there is none."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # has what it needs of a Call
    assert status is not None, error.details()
    assert any(packed.Unpack(into) for packed in status.details), status
    return into
