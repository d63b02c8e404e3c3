"""Keyed digests: what names pages and media, and chains journal entries.

The key is the owner's, so that equal content of two owners has two names and
nobody can test for another's content.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from blake3 import blake3

KEY_BYTES = 32

Bytes: TypeAlias = bytes | bytearray | memoryview


def keyed_bytes(key: bytes, *parts: Bytes) -> bytes:
    """32 bytes: BLAKE3 of the parts after one another, under a 32-byte key."""
    hasher = blake3(key=key)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def keyed_digest(key: bytes, content: Bytes) -> str:
    """64 hex digits: BLAKE3 of the content under a 32-byte key."""
    return keyed_bytes(key, content).hex()


def growing_digests(key: bytes, parts: Iterable[Bytes]) -> list[str]:
    """64 hex digits each: BLAKE3 under a 32-byte key of the first part, of the first two, and so on."""
    hasher = blake3(key=key)
    digests = []
    for part in parts:
        hasher.update(part)
        digests.append(hasher.hexdigest())
    return digests
