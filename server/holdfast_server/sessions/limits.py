"""Bounds on what clients may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and counts; the defaults are the server's."""

    media_bytes: int = 20 * 2**20
    media_pixels: int = 40_000_000
    text_bytes: int = 8 * 2**20
    chunks_per_append: int = 256
    message_bytes: int = 64 * 2**20
    sessions: int = 100_000
    archive_bytes: int = 4 * 2**30
    """Of an imported file, its pages aside."""
