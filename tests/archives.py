"""Exported files taken apart and put together again, as a forger would."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

from holdfast_server.sessions.archive import Kind, Reader, Writer, digest
from holdfast_server.sessions.importing import Imported, Imports, Part

Records = list[tuple[Kind, bytes]]
FRAME = 1 << 20


def reader(data: bytes) -> Reader:
    """Reads a file in memory."""
    return Reader(lambda offset, size: data[offset : offset + size], len(data))


def split(data: bytes) -> Records:
    """The records of a sound file, the last (DONE) left out."""
    at, records = 16, []
    while at < len(data):
        name, _, size = struct.unpack_from("<4sIQ", data, at)
        at += 16
        records.append((Kind(name.decode()), data[at : at + size]))
        at += size + 32
    return records[:-1]


def join(records: Records) -> bytes:
    """A file of these records, every digest right."""
    writer = Writer()
    pieces = [writer.start()]
    for kind, body in records:
        pieces += [bytes(piece) for piece in writer.record(kind, body)]
    return b"".join([*pieces, *(bytes(piece) for piece in writer.finish())])


def relisted(records: Records) -> Records:
    """The same records with a manifest that lists the pages as they are now."""
    pages = [digest(body) for kind, body in records if kind is Kind.PAGE]
    logits = [digest(body) for kind, body in records if kind is Kind.LOGITS]
    head = json.loads(records[0][1])
    listed = zip(head["page_cells"], pages, strict=False)
    manifest = {
        "v": 1,
        "cells": sum(head["page_cells"]),
        "pages": [{"cells": cells, "digest": name} for cells, name in listed],
        "logits": logits[0] if logits else None,
    }
    body = json.dumps(manifest, separators=(",", ":")).encode()
    return [(kind, body if kind is Kind.MANIFEST else old) for kind, old in records]


def with_head(records: Records, **changes: Any) -> Records:
    """The same records under another description."""
    head = json.loads(records[0][1]) | changes
    return [(Kind.HEAD, json.dumps(head, ensure_ascii=False).encode()), *records[1:]]


def replaced(records: Records, kind: Kind, body: bytes, number: int = 0) -> Records:
    """The same records with another body in one of a kind."""
    at = [index for index, (found, _) in enumerate(records) if found is kind][number]
    return [*records[:at], (kind, body), *records[at + 1 :]]


def bodies(records: Records, kind: Kind) -> Sequence[bytes]:
    """The bodies of one kind."""
    return [body for found, body in records if found is kind]


async def take_in(imports: Imports, data: bytes, checkpoint_id: str = "") -> Imported:
    """Imports a file without a network between."""

    async def parts() -> AsyncIterator[Part]:
        for offset in range(0, max(len(data), 1), FRAME):
            rest = data[offset : offset + FRAME]
            yield Part("", offset, rest, offset + FRAME >= len(data), checkpoint_id)

    return await imports.receive("default", parts())
