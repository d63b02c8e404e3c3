"""The JSON records of an exported checkpoint: what it is (HEAD), and what the file held (MNFT).

docs/format.md describes both. What is read here comes from anywhere: every
value's type and range is checked. Pure functions; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from holdfast_server.errors import HoldfastError
from holdfast_server.sessions import journal
from holdfast_server.sessions.archive import refused
from holdfast_server.sessions.session import (
    ChatFormat,
    Sampling,
    Settings,
    check_id,
    check_labels,
    check_sampling,
)
from holdfast_server.store.catalog import CheckpointRecord

T = TypeVar("T")

_VERSION = 1
_MOST = 2**31 - 1
_NAME_CHARS = 1024
_SAMPLING_INTEGERS = {"max_tokens", "top_k", "seed"}


@dataclass(frozen=True, slots=True)
class Description:
    """What an exported checkpoint is, and which records follow."""

    record: CheckpointRecord
    """As it was on the server that exported it; owner, head and row mean nothing."""
    settings: Settings
    media: int
    """How many pictures follow."""
    page_cells: tuple[int, ...]
    """Cells of each page that follows."""
    logits: bool

    @property
    def entries(self) -> int:
        """How many journal entries follow."""
        return self.record.revision


def encode(record: CheckpointRecord, media: int, page_cells: Sequence[int], logits: bool) -> bytes:
    """The body of a HEAD record."""
    data = {
        "v": _VERSION,
        "checkpoint_id": record.checkpoint_id,
        "session_id": record.session_id,
        "revision": record.revision,
        "token_count": record.token_count,
        "position": record.position,
        "labels": dict(record.labels),
        "model": record.model,
        "compatibility_key": record.compatibility_key,
        "created": record.created,
        "settings": _settings_out(journal.decode_settings(record.settings)),
        "media": media,
        "page_cells": list(page_cells),
        "logits": logits,
    }
    return _dump(data)


def decode(data: bytes) -> Description:
    """The inverse of `encode`. Raises IMPORT_REFUSED."""
    raw = _load(data)
    if _get(raw, "v", int) != _VERSION:
        raise refused("its HEAD is of another version")
    try:
        settings = _settings(_get(raw, "settings", dict))
        record = _record(raw)
        check_id("checkpoint_id", record.checkpoint_id)
        check_id("session_id", record.session_id)
        check_labels(record.labels)
    except HoldfastError as error:
        raise refused(f"in its HEAD, {error.message}") from error
    return Description(
        record,
        settings,
        media=_count(raw, "media"),
        page_cells=tuple(_cells(cells) for cells in _get(raw, "page_cells", list)),
        logits=_get(raw, "logits", bool),
    )


def _record(raw: dict[str, Any]) -> CheckpointRecord:
    return CheckpointRecord(
        owner="",
        checkpoint_id=_get(raw, "checkpoint_id", str),
        session_id=_get(raw, "session_id", str),
        head=None,
        revision=_count(raw, "revision"),
        token_count=_count(raw, "token_count"),
        position=_count(raw, "position"),
        labels=_labels(_get(raw, "labels", dict)),
        model=_name(raw, "model"),
        compatibility_key=_name(raw, "compatibility_key"),
        page_count=0,
        raw_bytes=0,
        stored_bytes=0,
        created=_time(raw),
        settings="",
    )


def _settings(raw: dict[str, Any]) -> Settings:
    sampling = _get(raw, "sampling", dict)
    for name, value in sampling.items():
        if name == "stop":
            fits = isinstance(value, list) and all(_is_text(text) for text in value)
        else:
            fits = type(value) is int or (type(value) is float and name not in _SAMPLING_INTEGERS)
        if not fits:
            raise refused("a sampling parameter has the wrong type")
    try:
        chat_format = ChatFormat(_get(raw, "chat_format", str))
        choices = Sampling.from_json(sampling)
    except (ValueError, TypeError) as error:
        raise refused("its settings cannot be read") from error
    check_sampling(choices, context_tokens=_MOST)
    return Settings(chat_format, choices, _name(raw, "token_key"))


def _settings_out(settings: Settings) -> dict[str, Any]:
    return {
        "chat_format": settings.chat_format,
        "sampling": settings.sampling.as_json(),
        "token_key": settings.token_key,
    }


def _labels(raw: dict[str, Any]) -> dict[str, str]:
    if not all(_is_text(key) and _is_text(value) for key, value in raw.items()):
        raise refused("a label is no text")
    return raw


def _name(raw: dict[str, Any], key: str) -> str:
    name = _get(raw, key, str)
    if not _is_text(name) or len(name) > _NAME_CHARS:
        raise refused(f"its {key} is no name")
    return name


def _time(raw: dict[str, Any]) -> int:
    created = _get(raw, "created", int)
    if not 0 <= created < 2**63:
        raise refused("its time of creation is out of range")
    return created


def _count(raw: dict[str, Any], key: str) -> int:
    count = _get(raw, key, int)
    if not 0 <= count <= _MOST:
        raise refused(f"its {key} is out of range")
    return count


def _cells(value: object) -> int:
    if type(value) is not int or not 0 < value <= _MOST:
        raise refused("a page's number of cells is out of range")
    return value


def encode_manifest(pages: Sequence[tuple[int, str]], logits: str | None) -> bytes:
    """The body of an MNFT record: cells and plain digest of each page, and the digest of the logits."""
    data = {
        "v": _VERSION,
        "cells": sum(cells for cells, _ in pages),
        "pages": [{"cells": cells, "digest": digest} for cells, digest in pages],
        "logits": logits,
    }
    return _dump(data)


def _dump(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _load(data: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise refused("its HEAD is not JSON") from error
    if not isinstance(raw, dict):
        raise refused("its HEAD is no object")
    return raw


def _get(raw: dict[str, Any], key: str, kind: type[T]) -> T:
    value = raw.get(key)
    if type(value) is not kind:
        raise refused(f"its HEAD has no {key} of the right type")
    return value


def _is_text(value: object) -> bool:
    """A string that UTF-8 can hold, which JSON does not promise."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
