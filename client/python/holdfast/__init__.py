"""Holdfast: long-lived multimodal sessions on llama.cpp, over gRPC.

    from pathlib import Path

    import holdfast

    with holdfast.Client("127.0.0.1:50051") as client:
        session = client.create_session()
        session.append(holdfast.system("Answer briefly."), "What is this?", Path("kelp.jpg"))
        for piece in session.generate(max_tokens=200):
            print(piece, end="")
        checkpoint = session.checkpoint()
        again = client.restore(checkpoint).session

`AsyncClient` is the same with `await`. Errors are in `holdfast.errors`; all
derive from `HoldfastError`.
"""

from holdfast._client import AsyncClient
from holdfast._generation import AsyncGeneration
from holdfast._parts import Chunk, Part, Picture, assistant, image, system, text, tool, user
from holdfast._session import AsyncSession
from holdfast._sync import Client, Generation, Session
from holdfast._types import (
    ChatFormat,
    CheckpointInfo,
    Completion,
    Delta,
    ExportResult,
    Finish,
    FinishReason,
    ImportResult,
    Limits,
    MemoryKind,
    ModelInfo,
    Residency,
    RestoreMode,
    RestoreResult,
    Role,
    Sampling,
    SamplingOptions,
    ServerInfo,
    ServingStatus,
    SessionInfo,
    SessionState,
    Usage,
)
from holdfast.errors import (
    AlreadyExistsError,
    ConflictError,
    ContextWindowError,
    DataLossError,
    DeadlineError,
    ExhaustedError,
    FieldViolation,
    HoldfastError,
    InvalidArgumentError,
    MediaError,
    NotFoundError,
    PreconditionError,
    ServerError,
    SessionBusyError,
    StaleRevisionError,
    UnavailableError,
)

__all__ = [
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncGeneration",
    "AsyncSession",
    "ChatFormat",
    "CheckpointInfo",
    "Chunk",
    "Client",
    "Completion",
    "ConflictError",
    "ContextWindowError",
    "DataLossError",
    "DeadlineError",
    "Delta",
    "ExhaustedError",
    "ExportResult",
    "FieldViolation",
    "Finish",
    "FinishReason",
    "Generation",
    "HoldfastError",
    "ImportResult",
    "InvalidArgumentError",
    "Limits",
    "MediaError",
    "MemoryKind",
    "ModelInfo",
    "NotFoundError",
    "Part",
    "Picture",
    "PreconditionError",
    "Residency",
    "RestoreMode",
    "RestoreResult",
    "Role",
    "Sampling",
    "SamplingOptions",
    "ServerError",
    "ServerInfo",
    "ServingStatus",
    "Session",
    "SessionBusyError",
    "SessionInfo",
    "SessionState",
    "StaleRevisionError",
    "UnavailableError",
    "Usage",
    "assistant",
    "image",
    "system",
    "text",
    "tool",
    "user",
]
