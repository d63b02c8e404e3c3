"""llama.cpp's sequence state as rows: parse it, check it, and build it again.

A state blob (format of llama.cpp 0c1e57098, `llama_kv_cache::state_write`) is

    u32 magic, i32 sequence, u32 streams (1), u32 cells,
    cells x { i32 position, u32 sequences (1), i32 sequence },
    u32 transposed, u32 layers,
    layers x { i32 type, u64 row bytes, cells x row }                       keys
    layers x { i32 type, u64 row bytes, cells x row }                       values, or, transposed,
    layers x { i32 type, u32 element bytes, u32 rows, rows x cells x element }

Cells come in the order of the cache, not of the sequence, so rows are sorted by
position here. A blob that goes back was built here, field by field, from the
layout that this very context showed at start-up: nothing of a stored header
ever reaches llama.cpp.

A page's content, version 1 (little-endian), is the canonical form:

    4 bytes "HFKV", u16 version, u16 reserved (0), u32 cells, u32 row bytes,
    cells x i32 position,
    then for each key layer and each value layer: cells x row

Pure functions over numpy arrays; nothing here calls llama.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int32]

_MAGIC = 0xAF143CD8
_HEAD = struct.Struct("<IiII")
_CELL = np.dtype([("position", "<i4"), ("count", "<u4"), ("sequence", "<i4")])
_LAYERS = struct.Struct("<II")
_PLAIN = struct.Struct("<iQ")
_TRANSPOSED = struct.Struct("<iII")
_PAGE = struct.Struct("<4sHHII")
_PAGE_MAGIC = b"HFKV"
_PAGE_VERSION = 1


class StateRefused(Exception):
    """Bytes that are not the state they should be; the message says which field."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One tensor of the cache: its ggml type and bytes a cell."""

    kind: int
    row_bytes: int
    element_bytes: int = 0
    """Bytes of one element where the tensor is stored transposed, else 0."""

    @property
    def header(self) -> bytes:
        """The tensor's header in a blob."""
        if not self.element_bytes:
            return _PLAIN.pack(self.kind, self.row_bytes)
        return _TRANSPOSED.pack(self.kind, self.element_bytes, self.row_bytes // self.element_bytes)


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of every state blob of one context."""

    keys: tuple[Layer, ...]
    values: tuple[Layer, ...]
    transposed: bool

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All tensors in the order of a blob: keys, then values."""
        return self.keys + self.values

    @property
    def row_bytes(self) -> int:
        """Bytes of one cell over all tensors."""
        return sum(layer.row_bytes for layer in self.layers)

    def blob_bytes(self, cells: int) -> int:
        """Size of a state blob of `cells` cells."""
        headers = sum(len(layer.header) for layer in self.layers)
        return _HEAD.size + cells * (_CELL.itemsize + self.row_bytes) + _LAYERS.size + headers

    def page_bytes(self, cells: int) -> int:
        """Size of a page's content of `cells` cells."""
        return _PAGE.size + cells * (4 + self.row_bytes)


@dataclass(frozen=True, slots=True)
class Rows:
    """KV cells in the order of the sequence.

    `positions` has shape [cells]; `tensors` holds one array of shape
    [cells, row bytes] for each layer's keys, then each layer's values.
    """

    positions: Positions
    tensors: tuple[Bytes, ...]


class _Reader:
    """Reads fields one after the other and refuses to run past the end."""

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size).tobytes())

    def take(self, size: int) -> Bytes:
        if size > len(self._data) - self._at:
            raise StateRefused("the state ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def finish(self) -> None:
        if self._at != len(self._data):
            raise StateRefused("the state has bytes left over")


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise StateRefused(f"{what} is {found}, expected {wanted}")


def learn_layout(blob: Bytes) -> Layout:
    """The layout that a context shows in the state of a one-token sequence.

    Raises StateRefused when the state is not that of a plain KV cache.
    """
    reader = _Reader(blob)
    _read_cells(reader, 1)
    transposed, count = reader.unpack(_LAYERS)
    if transposed not in (0, 1) or not 0 < count <= 1024:
        raise StateRefused("the state has no plain KV cache header")
    keys = tuple(_learn_layer(reader, transposed=False) for _ in range(count))
    values = tuple(_learn_layer(reader, transposed=bool(transposed)) for _ in range(count))
    reader.finish()
    return Layout(keys, values, bool(transposed))


def _learn_layer(reader: _Reader, *, transposed: bool) -> Layer:
    if transposed:
        kind, element, rows = reader.unpack(_TRANSPOSED)
        layer = Layer(kind, element * rows, element)
    else:
        kind, row_bytes = reader.unpack(_PLAIN)
        layer = Layer(kind, row_bytes)
    reader.take(layer.row_bytes)
    return layer


def _read_cells(reader: _Reader, count: int) -> Positions:
    magic, _, streams, cells = reader.unpack(_HEAD)
    _expect(magic, _MAGIC, "magic")
    _expect(streams, 1, "stream count")
    _expect(cells, count, "cell count")
    table = reader.take(count * _CELL.itemsize).view(_CELL)
    if (table["count"] != 1).any():
        raise StateRefused("a cell belongs to more than one sequence")
    return np.ascontiguousarray(table["position"])


def parse(blob: Bytes, layout: Layout, expected: Positions) -> Rows:
    """The rows of a blob in the order of `expected`, shape [cells]; views of `blob` where possible.

    Raises StateRefused unless the blob holds exactly the expected positions in exactly this layout.
    """
    count = len(expected)
    reader = _Reader(blob)
    found = _read_cells(reader, count)
    order = np.argsort(found, kind="stable")
    if not np.array_equal(found[order], expected):
        raise StateRefused("the cells' positions are not those of the journal")
    _expect(reader.unpack(_LAYERS), (int(layout.transposed), len(layout.keys)), "layer header")
    in_order = bool(np.array_equal(order, np.arange(count)))
    tensors = []
    for layer in layout.layers:
        _expect(reader.take(len(layer.header)).tobytes(), layer.header, "tensor header")
        rows = _as_rows(reader.take(count * layer.row_bytes), layer, count)
        tensors.append(rows if in_order else rows[order])
    reader.finish()
    return Rows(expected, tuple(tensors))


def _as_rows(data: Bytes, layer: Layer, cells: int) -> Bytes:
    """[cells, row bytes] of a tensor as it stands in a blob."""
    if not layer.element_bytes:
        return data.reshape(cells, layer.row_bytes)
    elements = data.reshape(layer.row_bytes // layer.element_bytes, cells, layer.element_bytes)
    return np.ascontiguousarray(elements.transpose(1, 0, 2)).reshape(cells, layer.row_bytes)


def pack_page(rows: Rows, start: int, stop: int) -> Bytes:
    """The content of the page that holds cells [start, stop) of `rows`; a copy."""
    cells = stop - start
    row_bytes = sum(tensor.shape[1] for tensor in rows.tensors)
    page = np.empty(_PAGE.size + cells * (4 + row_bytes), np.uint8)
    page[: _PAGE.size] = np.frombuffer(_PAGE.pack(_PAGE_MAGIC, _PAGE_VERSION, 0, cells, row_bytes), np.uint8)
    at = _PAGE.size
    for part in (rows.positions[start:stop].view(np.uint8), *(t[start:stop] for t in rows.tensors)):
        page[at : at + part.size] = part.reshape(-1)
        at += part.size
    return page


def unpack_page(page: Bytes, layout: Layout) -> Rows:
    """The rows of a page's content, as views. Raises StateRefused when it does not fit the layout."""
    reader = _Reader(page)
    magic, version, reserved, cells, row_bytes = reader.unpack(_PAGE)
    _expect((magic, version, reserved), (_PAGE_MAGIC, _PAGE_VERSION, 0), "page header")
    _expect(row_bytes, layout.row_bytes, "page row size")
    _expect(len(page), layout.page_bytes(cells), "page size")
    positions = reader.take(cells * 4).view("<i4")
    tensors = tuple(
        reader.take(cells * layer.row_bytes).reshape(cells, layer.row_bytes) for layer in layout.layers
    )
    return Rows(positions, tensors)


def build(pages: Sequence[Rows], layout: Layout, expected: Positions, into: Bytes) -> Bytes:
    """Merges pages into one state blob inside `into`, which must be large enough; returns the used part.

    Raises StateRefused unless the pages hold exactly the expected positions, in order.
    """
    count = len(expected)
    found = np.concatenate([page.positions for page in pages]) if pages else np.empty(0, np.int32)
    if count == 0 or not np.array_equal(found, expected):
        raise StateRefused("the pages' positions are not those of the journal")
    blob = into[: layout.blob_bytes(count)]
    writer = _Writer(blob)
    writer.put(_HEAD.pack(_MAGIC, 0, 1, count))
    table = writer.room(count * _CELL.itemsize).view(_CELL)
    table["position"], table["count"], table["sequence"] = expected, 1, 0
    writer.put(_LAYERS.pack(int(layout.transposed), len(layout.keys)))
    for index, layer in enumerate(layout.layers):
        writer.put(layer.header)
        _fill(writer.room(count * layer.row_bytes), layer, [page.tensors[index] for page in pages], count)
    return blob


def _fill(room: Bytes, layer: Layer, parts: list[Bytes], cells: int) -> None:
    if layer.element_bytes:
        shape = (cells, layer.row_bytes // layer.element_bytes, layer.element_bytes)
        rows = np.concatenate(parts).reshape(shape)
        room.reshape(shape[1], cells, layer.element_bytes)[:] = rows.transpose(1, 0, 2)
        return
    target = room.reshape(cells, layer.row_bytes)
    at = 0
    for part in parts:
        target[at : at + len(part)] = part
        at += len(part)


class _Writer:
    """Hands out consecutive parts of a buffer."""

    def __init__(self, buffer: Bytes) -> None:
        self._buffer = buffer
        self._at = 0

    def room(self, size: int) -> Bytes:
        self._at += size
        return self._buffer[self._at - size : self._at]

    def put(self, data: bytes) -> None:
        self.room(len(data))[:] = np.frombuffer(data, np.uint8)
