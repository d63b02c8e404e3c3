"""Numbers that are not finite are found in every type of cell that can be looked into."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast_server.llama import finite
from holdfast_server.llama.state import Layer, Layout, Rows, StateRefused

# ggml type, bytes of a row, offsets in the row where a float's highest byte lies, that byte's worst value
CASES = [
    (0, 64, (3, 63), (0x7F, 0xFF)),
    (1, 64, (1, 63), (0x7C, 0xFE)),
    (30, 64, (1, 63), (0x7F, 0xFF)),
    (8, 68, (1, 35), (0x7C, 0xFC)),
    (2, 36, (1, 19), (0x7C, 0xFC)),
    (3, 40, (1, 3, 21, 23), (0x7C,)),
    (6, 44, (1, 23), (0x7C,)),
    (7, 48, (1, 3, 25, 27), (0x7C,)),
    (20, 36, (1, 19), (0x7C,)),
]


def rows(kind: int, row_bytes: int) -> tuple[Rows, Layout]:
    """Three cells of zeros, in keys and values."""
    layer = Layer(kind, row_bytes)
    tensors = tuple(np.zeros((3, row_bytes), np.uint8) for _ in range(2))
    return Rows(np.arange(3, dtype=np.int32), tensors), Layout((layer,), (layer,), transposed=False)


@pytest.mark.parametrize(("kind", "row_bytes", "places", "worst"), CASES)
def test_a_number_that_is_not_finite_is_found(
    kind: int, row_bytes: int, places: tuple[int, ...], worst: tuple[int, ...]
) -> None:
    for place in places:
        for value in worst:
            cells, layout = rows(kind, row_bytes)
            finite.check(cells, layout)
            # All ones below the sign: infinity or NaN, whatever the width of the exponent.
            cells.tensors[1][2, place] = value
            cells.tensors[1][2, place - 1] = 0x80 if kind in (0, 30) else 0
            with pytest.raises(StateRefused):
                finite.check(cells, layout)


@pytest.mark.parametrize(("kind", "dtype"), [(0, np.float32), (1, np.float16)])
def test_all_finite_numbers_pass(kind: int, dtype: type[np.float16] | type[np.float32]) -> None:
    cells, layout = rows(kind, 64)
    largest = np.finfo(dtype)
    cells.tensors[0].view(dtype)[:] = largest.max
    cells.tensors[1].view(dtype)[:] = largest.min
    finite.check(cells, layout)


def test_small_integers_of_a_block_are_not_mistaken_for_floats() -> None:
    cells, layout = rows(8, 68)
    cells.tensors[0].reshape(3, 2, 34)[:, :, 2:] = 0x7F
    finite.check(cells, layout)


def test_a_type_that_cannot_be_looked_into_is_refused() -> None:
    with pytest.raises(StateRefused):
        finite.check(*rows(12, 64))
