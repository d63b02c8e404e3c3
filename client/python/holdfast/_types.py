"""What calls return: frozen values, one class for each message of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypedDict, TypeVar

S = TypeVar("S", covariant=True)


class ChatFormat(StrEnum):
    """How chunks become tokens."""

    UNSPECIFIED = "unspecified"
    TEMPLATE = "template"
    RAW = "raw"


class Role(StrEnum):
    """Who speaks in a chunk."""

    UNSPECIFIED = "unspecified"
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class SessionState(StrEnum):
    """What a session is doing."""

    UNSPECIFIED = "unspecified"
    IDLE = "idle"
    PREFILLING = "prefilling"
    GENERATING = "generating"


class Residency(StrEnum):
    """Where a session's KV state is."""

    UNSPECIFIED = "unspecified"
    RESIDENT = "resident"
    COLD = "cold"


class FinishReason(StrEnum):
    """Why a generation ended."""

    UNSPECIFIED = "unspecified"
    END_OF_TURN = "end_of_turn"
    STOP_STRING = "stop_string"
    MAX_TOKENS = "max_tokens"
    CONTEXT_FULL = "context_full"
    CANCELLED = "cancelled"


class RestoreMode(StrEnum):
    """How KV state came back: from verified pages, or recomputed from the journal."""

    UNSPECIFIED = "unspecified"
    RESTORED = "restored"
    REBUILT = "rebuilt"


class MemoryKind(StrEnum):
    """The kind of memory a model keeps. UNSPECIFIED: a kind that this client does not know."""

    UNSPECIFIED = "unspecified"
    PLAIN = "plain"


class ServingStatus(StrEnum):
    """What grpc.health.v1 says of a server."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"


class SamplingOptions(TypedDict, total=False):
    """How to choose the next token; what is left out takes the session's, then the server's default."""

    max_tokens: int
    """Tokens to generate at most. Server default 1,024."""
    temperature: float
    """0 to 10; 0 always takes the likeliest token. Server default 0.8."""
    top_p: float
    """Above 0, at most 1. Server default 0.95."""
    top_k: int
    """0 (off) to 1,000. Server default 40."""
    min_p: float
    """0 (off) to 1. Server default 0.05."""
    repeat_penalty: float
    """Above 0, at most 10; 1 is off. Server default 1."""
    frequency_penalty: float
    """-10 to 10. Server default 0."""
    presence_penalty: float
    """-10 to 10. Server default 0."""
    seed: int
    """0 to 4,294,967,295. Session default: random."""
    stop: list[str] | tuple[str, ...]
    """Stop before any of these strings: at most 16 of at most 256 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """A session's sampling defaults; None where the server's default holds."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session as the server last described it."""

    session_id: str
    revision: int
    """Number of journal entries."""
    position: int
    """llama.cpp position of the next token."""
    token_count: int
    """Tokens in the session, pictures included."""
    state: SessionState
    residency: Residency
    chat_format: ChatFormat
    sampling: Sampling
    labels: Mapping[str, str]
    create_time: datetime
    """When it was created or restored, in UTC."""
    update_time: datetime
    """When its journal last grew, in UTC."""
    model: str
    ttl: timedelta | None = None
    """How long it lives after its last use; None is for ever."""
    expire_time: datetime | None = None
    """When it is deleted unless it is used before, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a call really cost. Times are the server's."""

    prompt_tokens: int
    """Tokens in the session before the first generated one; for an append, the tokens appended."""
    cached_tokens: int
    """Prompt tokens whose KV cells were there before the call."""
    prefilled_tokens: int
    """Prompt tokens computed for the call."""
    restored_tokens: int
    """Tokens whose KV cells came out of stored pages."""
    generated_tokens: int
    media_encoded: int
    """Pictures that went through the vision encoder."""
    media_reused: int
    """Pictures whose KV cells or embeddings were reused."""
    pages_written: int
    raw_bytes: int
    """Bytes of KV state read from the context or, on restore, put back into it."""
    stored_bytes: int
    """Bytes written to the store or, on restore, read from it."""
    queue_time: timedelta
    encode_time: timedelta
    prefill_time: timedelta
    decode_time: timedelta
    state_time: timedelta
    """Copying KV state out of the llama.cpp context or into it."""
    store_time: timedelta
    """Hashing, compressing, reading and durably writing."""
    total_time: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """A named revision of a session, with the KV state that belongs to it."""

    checkpoint_id: str
    session_id: str
    """The session it was taken of, which may be gone."""
    revision: int
    position: int
    token_count: int
    page_count: int
    raw_bytes: int
    """Bytes of KV state in its pages."""
    stored_bytes: int
    """Bytes those pages take in the store."""
    labels: Mapping[str, str]
    create_time: datetime
    """In UTC."""
    model: str
    compatibility_key: str
    expire_time: datetime | None = None
    """When it is deleted unless it is pinned then, in UTC; None is never."""
    pinned: bool = False
    """Whether it is kept whatever its age and however full the store is."""
    usage: Usage | None = field(default=None, compare=False)
    """What taking it cost; None when it was read or listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult(Generic[S]):
    """A restored session, and whether its KV state came from pages or was recomputed."""

    session: S
    mode: RestoreMode
    rebuild_reason: str
    """When rebuilt: PAGE_CORRUPT, PAGE_MISSING, KEY_MISMATCH or STATE_REFUSED."""
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A checkpoint that was exported, whole and verified."""

    total_bytes: int
    sha256: str
    """Of the file, in hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """A checkpoint that was imported."""

    checkpoint: CheckpointInfo
    pages_imported: bool
    """False when its KV state was left out, because this server could not use it; it will be recomputed."""


class Delta(str):
    """A piece of generated text, and the ids of the tokens sampled for it.

    A plain `str` in every other respect. Empty while a character or a stop
    string is incomplete.
    """

    token_ids: tuple[int, ...]

    def __new__(cls, text: str = "", token_ids: tuple[int, ...] = ()) -> Delta:
        delta = super().__new__(cls, text)
        delta.token_ids = token_ids
        return delta

    def __repr__(self) -> str:
        return f"Delta({str(self)!r}, token_ids={self.token_ids})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How a generation ended."""

    reason: FinishReason
    matched_stop: str
    """The stop string that ended it, if one did; not part of the text."""
    session: SessionInfo
    """The session after the generation."""
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A finished generation. `str()` gives its text."""

    text: str
    token_ids: tuple[int, ...]
    finish: Finish

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The served model."""

    name: str
    description: str
    parameter_count: int
    trained_context_tokens: int
    memory_kind: MemoryKind
    vision: bool
    """Whether it takes pictures."""
    chat_template: bool
    """Whether it carries a chat template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a client may ask for."""

    context_tokens: int
    """Tokens a session may hold."""
    media_bytes: int
    """Bytes of one picture's file."""
    media_pixels: int
    """Pixels of one picture, width times height."""
    chunks_per_append: int
    message_bytes: int
    """Bytes of one message on the wire."""
    sessions: int
    """Sessions the server keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """Versions, model and limits of a server."""

    version: str
    llama_cpp_version: str
    model: ModelInfo
    limits: Limits
    slot_count: int
    """Sessions that can be resident at once."""
    cell_count: int
    """KV cells shared by the resident sessions."""
    compatibility_key: str
    """What checkpoints taken now can be restored on."""
