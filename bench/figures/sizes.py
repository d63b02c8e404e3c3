"""The context sizes at which state work is measured."""

from __future__ import annotations

CELLS = 20480
"""`-c` of both systems: room for the largest size and what is generated on top."""

NAMED = {1024: "1k", 4096: "4k", 8192: "8k", 16384: "16k"}


def sizes(quick: bool) -> list[int]:
    """Cells, rising; a quick run leaves the largest out."""
    return [cells for cells in NAMED if not quick or cells <= 8192]
