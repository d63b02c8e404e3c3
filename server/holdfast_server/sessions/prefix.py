"""What a session begins with, as bytes to be digested: the key of the prompt cache.

A text token is its id, a picture's run of embeddings -1, the picture's digest
and the run's place in it; all numbers are little-endian and 32 bits. Equal
bytes: equal cells. How appends were cut into entries does not show.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import MediaSpan, Span

_MEDIA = struct.Struct("<iiii")


def parts(spans: Sequence[Span], stops: Sequence[int]) -> list[bytes]:
    """The content between one stop and the next, the first from the start; stops ascend, in cells."""
    content = []
    rest, at = list(spans), 0
    for stop in stops:
        behind = cells_of.after(rest, stop - at)
        content.append(_until(rest, stop - at))
        rest, at = behind, stop
    return content


def _until(spans: Sequence[Span], cells: int) -> bytes:
    data = []
    for span in spans:
        if cells <= 0:
            break
        if isinstance(span, MediaSpan):
            data.append(_MEDIA.pack(-1, span.index, span.cells, span.positions) + bytes.fromhex(span.digest))
        else:
            data.append(span.tokens[:cells].astype("<i4").tobytes())
        cells -= span.cells
    return b"".join(data)


def stops(entries: Sequence[Sequence[Span]], spans: Sequence[Span]) -> list[int]:
    """Where stored pages of this session, or of one that begins alike, may end; ascending, in cells.

    That is where pages are cut, and where the session stood after each of its
    entries, the held-back token aside. The last is the whole of what is decoded.
    """
    found = {stop for _, stop in cells_of.cut(spans, 0)}
    total, most = 0, cells_of.count_cells(spans)
    for entry in entries:
        total += cells_of.count_cells(entry)
        found |= {total, total - 1}
    edges = _picture_cells(spans)
    return sorted(stop for stop in found if 0 < stop <= most and stop not in edges)


def _picture_cells(spans: Sequence[Span]) -> set[int]:
    """Cells inside pictures, where nothing can be cut."""
    inside: set[int] = set()
    at = 0
    for span in spans:
        if isinstance(span, MediaSpan):
            inside |= set(range(at + 1, at + span.cells))
        at += span.cells
    return inside
