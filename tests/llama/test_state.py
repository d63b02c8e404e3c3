"""State blobs and pages: exact round trips, and not one altered field gets through."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.llama import state
from holdfast_server.llama.state import Layer, Layout, StateRefused

PLAIN = Layout(keys=(Layer(1, 8), Layer(1, 4)), values=(Layer(1, 8), Layer(1, 4)), transposed=False)
TURNED = Layout(keys=(Layer(1, 8), Layer(1, 4)), values=(Layer(1, 8, 2), Layer(1, 4, 2)), transposed=True)
layouts = pytest.mark.parametrize("layout", [PLAIN, TURNED], ids=["plain", "transposed"])


def rows(layout: Layout, cells: int, seed: int = 0, start: int = 0) -> state.Rows:
    """Random cells at consecutive positions."""
    random = np.random.default_rng(seed)
    tensors = tuple(random.integers(0, 256, (cells, t.row_bytes), np.uint8) for t in layout.layers)
    return state.Rows(np.arange(start, start + cells, dtype=np.int32), tensors)


def blob(layout: Layout, pages: list[state.Rows]) -> state.Bytes:
    """A blob of the pages, as the module builds it."""
    expected = np.concatenate([page.positions for page in pages])
    return state.build(pages, layout, expected, np.zeros(100_000, np.uint8)).copy()


def same(one: state.Rows, other: state.Rows) -> bool:
    """Whether two runs of cells are equal."""
    tensors = zip(one.tensors, other.tensors, strict=True)
    return np.array_equal(one.positions, other.positions) and all(np.array_equal(a, b) for a, b in tensors)


@layouts
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_pages_merge_into_what_they_were_cut_from(layout: Layout, sizes: list[int]) -> None:
    whole = rows(layout, sum(sizes))
    edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    packed = [state.pack_page(whole, a, b) for a, b in pairwise(edges)]
    merged = blob(layout, [state.unpack_page(page, layout) for page in packed])
    assert same(state.parse(merged, layout, whole.positions), whole)
    assert len(merged) == layout.blob_bytes(sum(sizes))


@layouts
def test_a_layout_is_learnt_from_one_token(layout: Layout) -> None:
    assert state.learn_layout(blob(layout, [rows(layout, 1)])) == layout


@layouts
def test_cells_in_cache_order_are_put_in_the_order_of_the_sequence(layout: Layout) -> None:
    whole = rows(layout, 6)
    order = np.array([4, 0, 5, 1, 3, 2])
    shuffled = state.Rows(whole.positions[order], tuple(t[order] for t in whole.tensors))
    scattered = blob(layout, [shuffled])
    assert same(state.parse(scattered, layout, whole.positions), whole)


@layouts
def test_every_altered_bit_of_a_header_is_refused(layout: Layout) -> None:
    """Bits of the payload pass here: pages' checksums answer for those."""
    whole = rows(layout, 3)
    good = blob(layout, [whole])
    payload = sum(layer.row_bytes for layer in layout.layers) * 3
    refused = 0
    for bit in range(len(good) * 8):
        bad = good.copy()
        bad[bit // 8] ^= 1 << (bit % 8)
        try:
            state.parse(bad, layout, whole.positions)
        except StateRefused:
            refused += 1
    # The sequence ids (4 bytes for the blob, 4 a cell) are not ours to compare: they differ by slot.
    assert refused == 8 * (len(good) - payload - 4 - 3 * 4)


@layouts
def test_every_truncation_and_any_tail_is_refused(layout: Layout) -> None:
    whole = rows(layout, 2)
    good, page = blob(layout, [whole]), state.pack_page(whole, 0, 2)
    for size in range(len(good)):
        with pytest.raises(StateRefused):
            state.parse(good[:size], layout, whole.positions)
    for size in range(len(page)):
        with pytest.raises(StateRefused):
            state.unpack_page(page[:size], layout)
    for extra in (good, page):
        longer = np.append(extra, np.uint8(0))
        with pytest.raises(StateRefused):
            state.parse(longer, layout, whole.positions)
        with pytest.raises(StateRefused):
            state.unpack_page(longer, layout)


@pytest.mark.parametrize("position", [-1, -2, 2**31 - 1, 1, 7])
def test_ghost_positions_are_refused(position: int) -> None:
    page = state.pack_page(rows(PLAIN, 1), 0, 1)
    struct.pack_into("<i", page.data, 16, position)
    with pytest.raises(StateRefused):
        blob_of = state.unpack_page(page, PLAIN)
        state.build([blob_of], PLAIN, np.zeros(1, np.int32), np.zeros(1000, np.uint8))


def test_pages_of_another_layout_are_refused() -> None:
    page = state.pack_page(rows(PLAIN, 2), 0, 2)
    wider = Layout(keys=(Layer(1, 8), Layer(1, 8)), values=PLAIN.values, transposed=False)
    with pytest.raises(StateRefused):
        state.unpack_page(page, wider)


def test_a_missing_doubled_or_swapped_page_is_refused() -> None:
    first, second = rows(PLAIN, 2), rows(PLAIN, 2, start=2)
    expected = np.arange(4, dtype=np.int32)
    for pages in ([first], [first, first], [second, first], [first, second, second], []):
        with pytest.raises(StateRefused):
            state.build(pages, PLAIN, expected, np.zeros(1000, np.uint8))
