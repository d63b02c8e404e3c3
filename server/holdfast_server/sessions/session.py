"""What a session is made of, as plain values."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from blake3 import blake3

from holdfast_server.errors import HoldfastError, Reason, invalid
from holdfast_server.store.catalog import SessionRecord

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SECOND = 1_000_000_000
_MAX_TTL = 10 * 366 * 86_400 * _SECOND


class Role(StrEnum):
    """Who speaks; the names that chat templates use."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ChatFormat(StrEnum):
    """How chunks become tokens."""

    TEMPLATE = "template"
    RAW = "raw"


class State(StrEnum):
    """What a session is doing."""

    IDLE = "idle"
    PREFILLING = "prefilling"
    GENERATING = "generating"


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Text to append. `parse_special` reads control tokens in it as such."""

    role: Role | None
    text: str
    parse_special: bool = False


@dataclass(frozen=True, slots=True)
class ImageChunk:
    """A picture file to append; `mime_type` is empty when the client named none."""

    role: Role | None
    data: bytes
    mime_type: str = ""


Chunk = TextChunk | ImageChunk


@dataclass(frozen=True, slots=True)
class Sampling:
    """Choices for the next token; None takes the default of the level below."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None

    def over(self, defaults: Sampling) -> Sampling:
        """These choices, with `defaults` where they are None."""
        chosen = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(defaults, **chosen)

    def as_json(self) -> dict[str, Any]:
        """The choices that were made, for the catalog."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sampling:
        """The inverse of `as_json`."""
        stop = data.get("stop")
        return cls(**{**data, "stop": None if stop is None else tuple(stop)})


SERVER_SAMPLING = Sampling(
    max_tokens=1024,
    temperature=0.8,
    top_p=0.95,
    top_k=40,
    min_p=0.05,
    repeat_penalty=1.0,
    frequency_penalty=0.0,
    presence_penalty=0.0,
    seed=0,
    stop=(),
)

# name: (least, most, whether the least itself is allowed)
_BOUNDS: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, 10, True),
    "top_p": (0, 1, False),
    "top_k": (0, 1000, True),
    "min_p": (0, 1, True),
    "repeat_penalty": (0, 10, False),
    "frequency_penalty": (-10, 10, True),
    "presence_penalty": (-10, 10, True),
    "seed": (0, 2**32 - 1, True),
}


def check_sampling(sampling: Sampling, *, context_tokens: int) -> None:
    """Raises INVALID_FIELD for a number outside its bounds; NaN is outside every bound."""
    for name, (least, most, inclusive) in {**_BOUNDS, "max_tokens": (1, context_tokens, True)}.items():
        value = getattr(sampling, name)
        if value is None:
            continue
        if not least <= value <= most or (value == least and not inclusive):
            words = f"from {least}" if inclusive else f"above {least}"
            raise invalid(f"sampling.{name}", f"must be {words} to {most}")
    stop = sampling.stop or ()
    if len(stop) > 16 or any(not 0 < len(text.encode()) <= 256 for text in stop):
        raise invalid("sampling.stop", "takes at most 16 strings of 1 to 256 bytes")


def check_id(field: str, value: str) -> None:
    """Raises INVALID_FIELD unless the id is one."""
    if not _ID.fullmatch(value):
        raise invalid(field, "must match [a-z0-9][a-z0-9-]{0,62}")


def new_id(prefix: str, request_id: str = "") -> str:
    """A fresh id that no one can guess; for one request always the same."""
    random = blake3(request_id.encode()).hexdigest(8) if request_id else secrets.token_hex(8)
    return f"{prefix}-{random}"


def check_request_id(request_id: str) -> None:
    """Raises INVALID_FIELD unless it is empty or one."""
    if request_id and not _REQUEST_ID.fullmatch(request_id):
        raise invalid("request_id", "must match [A-Za-z0-9._:-]{1,128}")


def reused(what: str) -> HoldfastError:
    """The error for a request id that was given to another request before."""
    return HoldfastError(
        Reason.REQUEST_ID_REUSED,
        f"this request_id was used for another {what}; give every new request an id of its own",
        field="request_id",
    )


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises INVALID_FIELD for too many or too long labels."""
    fits = all(0 < len(k.encode()) <= 63 and len(v.encode()) <= 255 for k, v in labels.items())
    if len(labels) > 64 or not fits:
        raise invalid("labels", "may be at most 64, keys of 1 to 63 bytes, values of at most 255")


def check_ttl(ttl: int | None, *, forever: bool = False) -> None:
    """Raises INVALID_FIELD for nanoseconds outside 1 second to 10 years; `forever` allows 0."""
    if ttl is None or (forever and ttl == 0):
        return
    if not _SECOND <= ttl <= _MAX_TTL:
        raise invalid("ttl", "must be from 1 second to 10 years")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session was created with; never changes."""

    chat_format: ChatFormat
    sampling: Sampling
    token_key: str
    """Of the model that gives the session's token ids their meaning."""
    request_id: str = ""
    """That the client gave the call which made this session or checkpoint."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as clients see it."""

    record: SessionRecord
    settings: Settings
    state: State
    resident: bool


@dataclass(slots=True)
class Usage:
    """What a call cost; seconds by stage."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefilled_tokens: int = 0
    restored_tokens: int = 0
    generated_tokens: int = 0
    media_encoded: int = 0
    media_reused: int = 0
    pages_written: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    queue_seconds: float = 0.0
    encode_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    state_seconds: float = 0.0
    store_seconds: float = 0.0
    total_seconds: float = 0.0


def check_revision(record: SessionRecord, expected: int | None) -> None:
    """Raises STALE_REVISION unless the session is where the client believes it to be."""
    if expected is not None and expected != record.revision:
        raise HoldfastError(
            Reason.STALE_REVISION,
            f"the session is at revision {record.revision}, not {expected}; read it again before writing",
            metadata={"current_revision": str(record.revision)},
        )
