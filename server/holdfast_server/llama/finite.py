"""Whether KV rows hold only finite numbers, which pages from outside have to prove.

A NaN in a cell that a sequence may not even look at can make another's logits
NaN, since a mask is added and not multiplied. Pure numpy; any thread.
"""

from __future__ import annotations

import numpy as np

from holdfast_server.llama.state import Bytes, Layer, Layout, Rows, StateRefused

# ggml type: (unsigned type of a float's bits, mask of its exponent); all ones there: NaN or infinity
_FLOATS = {0: (np.uint32, 0x7F800000), 1: (np.uint16, 0x7C00), 30: (np.uint16, 0x7F80)}
# ggml type: (bytes of a block, float16 scales it begins with); the other bytes are small integers
_BLOCKS = {2: (18, 1), 3: (20, 2), 6: (22, 1), 7: (24, 2), 8: (34, 1), 20: (18, 1)}


def check(rows: Rows, layout: Layout) -> None:
    """Raises StateRefused for a number that is not finite, and for a type that cannot be looked into."""
    for layer, tensor in zip(layout.layers, rows.tensors, strict=True):
        if not _all_finite(layer, tensor):
            raise StateRefused("a cell holds a number that is not finite")


def _all_finite(layer: Layer, tensor: Bytes) -> bool:
    if layer.kind in _FLOATS:
        bits, exponent = _FLOATS[layer.kind]
        return _below(tensor.view(bits), exponent)
    if layer.kind in _BLOCKS:
        size, scales = _BLOCKS[layer.kind]
        blocks = tensor.reshape(len(tensor), -1, size)[:, :, : 2 * scales]
        return _below(np.ascontiguousarray(blocks).view(np.uint16), _FLOATS[1][1])
    raise StateRefused(f"cells of ggml type {layer.kind} cannot be checked")


def _below(numbers: np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]], exponent: int) -> bool:
    return not bool(((numbers & exponent) == exponent).any())
