"""Spans of a session seen as cells: counting, positions, and where pages are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from holdfast_server.engine.api import MediaSpan, Span, TokenSpan

PAGE_CELLS = 256
"""Cells of a page at most, but for a picture, which is never cut."""


def count_cells(spans: Sequence[Span]) -> int:
    """Cells of all spans, the held-back token's included: the session's token count."""
    return sum(span.cells for span in spans)


def count_positions(spans: Sequence[Span]) -> int:
    """The llama.cpp position after the last span."""
    return sum(span.positions for span in spans)


def held_token(spans: Sequence[Span]) -> int | None:
    """The last text token, which stays undecoded; None when a picture or nothing is last."""
    last = next((span for span in reversed(spans) if span.cells), None)
    return int(last.tokens[-1]) if isinstance(last, TokenSpan) else None


def decoded(spans: Sequence[Span]) -> list[Span]:
    """The spans without the held-back token: what the cache holds when the session is settled."""
    result = [span for span in spans if span.cells]
    if result and isinstance(result[-1], TokenSpan):
        result[-1] = TokenSpan(result[-1].tokens[:-1])
    return [span for span in result if span.cells]


def before(spans: Sequence[Span], cells: int) -> list[Span]:
    """The first `cells` cells, which end inside text or at a picture's edge."""
    first: list[Span] = []
    for span in spans:
        if cells <= 0:
            break
        first.append(TokenSpan(span.tokens[:cells]) if isinstance(span, TokenSpan) else span)
        cells -= span.cells
    return first


def after(spans: Sequence[Span], cells: int) -> list[Span]:
    """What follows the first `cells` cells, which end inside text or at a picture's edge."""
    rest: list[Span] = []
    for span in spans:
        skipped = min(cells, span.cells)
        cells -= skipped
        if isinstance(span, TokenSpan):
            rest.append(TokenSpan(span.tokens[skipped:]))
        elif not skipped:
            rest.append(span)
        elif skipped < span.cells:
            raise ValueError("a picture cannot be cut")
    return [span for span in rest if span.cells]


def common_cells(one: Sequence[Span], other: Sequence[Span]) -> int:
    """Cells at the beginning that two sessions have in common; whole pictures only."""
    common = 0
    for mine, theirs in zip(one, other, strict=False):
        if isinstance(mine, TokenSpan) and isinstance(theirs, TokenSpan):
            size = min(mine.cells, theirs.cells)
            differing = np.flatnonzero(mine.tokens[:size] != theirs.tokens[:size])
            if len(differing) or mine.cells != theirs.cells:
                return common + (int(differing[0]) if len(differing) else size)
        elif mine != theirs:
            return common
        common += mine.cells
    return common


def cell_positions(spans: Sequence[Span]) -> NDArray[np.int32]:
    """The position of every cell, shape [cells]."""
    parts = [np.empty(0, np.int32)]
    at = 0
    for span in spans:
        if span.cells != span.positions:
            raise ValueError("spans whose cells share positions are not supported")
        parts.append(np.arange(at, at + span.cells, dtype=np.int32))
        at += span.positions
    return np.concatenate(parts)


def cut(spans: Sequence[Span], first_cell: int) -> list[tuple[int, int]]:
    """Cell ranges [start, stop) of the pages that hold the cells from `first_cell` on.

    Cuts stand at multiples of PAGE_CELLS counted from the session's start, so that
    sessions with one beginning come to the same pages; where a multiple falls into
    a picture, the picture becomes a page of its own.
    """
    total = count_cells(spans)
    pictures = list(_pictures(spans))
    edges = {first_cell, total}
    for multiple in range(PAGE_CELLS, total, PAGE_CELLS):
        around = next((edge for edge in pictures if edge[0] < multiple < edge[1]), (multiple,))
        edges.update(around)
    return list(pairwise(sorted(edge for edge in edges if edge >= first_cell)))


def _pictures(spans: Sequence[Span]) -> Iterator[tuple[int, int]]:
    at = 0
    for span in spans:
        if isinstance(span, MediaSpan):
            yield at, at + span.cells
        at += span.cells
