"""Where pages are cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import MediaSpan, Span, TokenSpan
from holdfast_server.engine.spans import PAGE_CELLS

text_spans = st.integers(0, 700).map(lambda n: TokenSpan(np.arange(n, dtype=np.int32)))
pictures = st.integers(1, 700).map(lambda n: MediaSpan("d", 0, n, n))
sessions = st.lists(st.one_of(text_spans, pictures), max_size=6)


@given(sessions, st.data())
def test_pages_cover_every_cell_once_and_never_cut_a_picture(spans: list[Span], data: st.DataObject) -> None:
    whole = cells_of.cut(spans, 0)
    first = data.draw(st.sampled_from([0, *(stop for _, stop in whole)]))
    cuts = cells_of.cut(spans, first)
    total = cells_of.count_cells(spans)
    assert [cell for start, stop in cuts for cell in range(start, stop)] == list(range(first, total))
    edges = {stop for _, stop in cuts[:-1]}
    at = 0
    for span in spans:
        if isinstance(span, MediaSpan):
            assert not edges & set(range(at + 1, at + span.cells))
        at += span.cells
    # Only a page that is one picture, or the text behind it up to the next multiple, may differ in size.
    longest = max((span.cells for span in spans if isinstance(span, MediaSpan)), default=0)
    assert all(stop - start <= max(PAGE_CELLS, longest) for start, stop in cuts)


@given(sessions)
def test_later_spans_do_not_move_earlier_cuts(spans: list[Span]) -> None:
    longer = cells_of.cut([*spans, TokenSpan(np.zeros(900, np.int32))], 0)
    assert cells_of.cut(spans, 0)[:-1] == longer[: max(0, len(cells_of.cut(spans, 0)) - 1)]


def test_only_the_last_text_token_is_held_back() -> None:
    spans: list[Span] = [TokenSpan(np.array([1, 2], np.int32)), MediaSpan("d", 0, 4, 4)]
    assert cells_of.held_token(spans) is None
    assert cells_of.count_cells(cells_of.decoded(spans)) == 6
    spans.append(TokenSpan(np.array([7], np.int32)))
    assert cells_of.held_token(spans) == 7
    assert cells_of.count_cells(cells_of.decoded(spans)) == 6
