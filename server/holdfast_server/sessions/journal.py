"""Journal entries and settings, to and from the bytes the catalog keeps.

An entry is JSON, version 1:

    {"v": 1, "kind": "append" | "generate",
     "messages": [{"role": "user" | null, "parts": [{"text": "..."} | {"image": digest}]}],
     "spans": [{"tokens": [1, 2]} | {"media": digest, "index": 0, "cells": 64, "positions": 64}],
     "end": "text of the end-of-turn token that the model sampled, else empty",
     "request": "id that the client gave the call, so that a retry finds it here",
     "outcome": {"cause": "END_OF_TURN", "stop": "", "tokens": 12} | null}

`outcome` is there for what was generated; its tokens are the last ones of the spans.

Messages are what was said, for people and for other models; spans are exactly
what this model was fed, so that a rebuild computes the same cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from holdfast_server.engine.api import MediaSpan, Span, StopCause, TokenSpan
from holdfast_server.sessions.session import ChatFormat, Role, Sampling, Settings
from holdfast_server.store.damage import JournalCorrupt, JournalTooNew

_VERSION = 1


class Kind(StrEnum):
    """Who made the entry."""

    APPEND = "append"
    GENERATE = "generate"


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text as it was said."""

    text: str
    parse_special: bool = False


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture, by the digest of its original file."""

    digest: str


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class Message:
    """What one speaker said; no role in a raw session."""

    role: Role | None
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a generation ended."""

    cause: StopCause
    matched_stop: str
    tokens: int
    """Sampled ones, at the end of the entry's spans."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal entry."""

    kind: Kind
    messages: tuple[Message, ...]
    spans: tuple[Span, ...]
    end: str = ""
    request_id: str = ""
    outcome: Outcome | None = None

    @property
    def media(self) -> list[str]:
        """Digests of the pictures it refers to, each once."""
        digests = (p.digest for m in self.messages for p in m.parts if isinstance(p, ImagePart))
        return list(dict.fromkeys(digests))


def encode(entry: Entry) -> bytes:
    """The bytes of an entry."""
    data = {
        "v": _VERSION,
        "kind": entry.kind,
        "messages": [
            {"role": message.role, "parts": [_part_to_json(part) for part in message.parts]}
            for message in entry.messages
        ],
        "spans": [_span_to_json(span) for span in entry.spans],
        "end": entry.end,
        "request": entry.request_id,
        "outcome": _outcome_to_json(entry.outcome),
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def decode(payload: bytes) -> Entry:
    """The inverse of `encode`. Raises JournalTooNew, and JournalCorrupt for what no server wrote."""
    try:
        data = json.loads(payload)
        if data["v"] > _VERSION:
            raise JournalTooNew(f"a journal entry has version {data['v']}, of a newer holdfast")
        if data["v"] != _VERSION:
            raise JournalCorrupt("a journal entry is of no version there ever was")
        return Entry(
            kind=Kind(data["kind"]),
            messages=tuple(_message_from_json(message) for message in data["messages"]),
            spans=tuple(_span_from_json(span) for span in data["spans"]),
            end=data["end"],
            request_id=data["request"],
            outcome=_outcome_from_json(data["outcome"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise JournalCorrupt("a journal entry cannot be read") from error


def encode_settings(settings: Settings) -> str:
    """The JSON that the catalog keeps beside a session."""
    return json.dumps(
        {
            "chat_format": settings.chat_format,
            "sampling": settings.sampling.as_json(),
            "token_key": settings.token_key,
            "request": settings.request_id,
        }
    )


def decode_settings(text: str) -> Settings:
    """The inverse of `encode_settings`."""
    data = json.loads(text)
    return Settings(
        chat_format=ChatFormat(data["chat_format"]),
        sampling=Sampling.from_json(data["sampling"]),
        token_key=data["token_key"],
        request_id=data["request"],
    )


def _outcome_to_json(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {"cause": outcome.cause, "stop": outcome.matched_stop, "tokens": outcome.tokens}


def _outcome_from_json(data: dict[str, Any] | None) -> Outcome | None:
    return None if data is None else Outcome(StopCause(data["cause"]), data["stop"], data["tokens"])


def _part_to_json(part: Part) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        return {"image": part.digest}
    return {"text": part.text, "special": True} if part.parse_special else {"text": part.text}


def _message_from_json(data: dict[str, Any]) -> Message:
    role = Role(data["role"]) if data["role"] is not None else None
    return Message(role, tuple(_part_from_json(part) for part in data["parts"]))


def _part_from_json(data: dict[str, Any]) -> Part:
    if "image" in data:
        return ImagePart(data["image"])
    return TextPart(data["text"], bool(data.get("special", False)))


def _span_to_json(span: Span) -> dict[str, Any]:
    if isinstance(span, TokenSpan):
        return {"tokens": span.tokens.tolist()}
    return {"media": span.digest, "index": span.index, "cells": span.cells, "positions": span.positions}


def _span_from_json(data: dict[str, Any]) -> Span:
    if "tokens" in data:
        return TokenSpan(np.array(data["tokens"], np.int32))
    return MediaSpan(data["media"], data["index"], data["cells"], data["positions"])


def join(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The same spans with neighbouring runs of tokens made one and empty ones left out."""
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        if isinstance(span, TokenSpan) and isinstance(last, TokenSpan):
            joined[-1] = TokenSpan(np.concatenate([last.tokens, span.tokens]))
        elif span.cells:
            joined.append(span)
    return tuple(joined)


def renamed(entry: Entry, names: Mapping[str, str]) -> Entry:
    """The same entry with its pictures under other digests."""
    messages = tuple(
        Message(m.role, tuple(ImagePart(names[p.digest]) if isinstance(p, ImagePart) else p for p in m.parts))
        for m in entry.messages
    )
    spans = tuple(
        replace(span, digest=names[span.digest]) if isinstance(span, MediaSpan) else span
        for span in entry.spans
    )
    return replace(entry, messages=messages, spans=spans)
