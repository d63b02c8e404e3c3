"""The KV cells of a checkpoint, read out of a data directory that no server holds."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from holdfast_server.sessions import manifest as manifests
from holdfast_server.store.store import Store

Bytes: TypeAlias = npt.NDArray[np.uint8]

_OWNER = "default"
_HEADER = struct.Struct("<4sHHII")
_MAX_PAGE_BYTES = 1 << 30


async def pages(data_dir: Path, checkpoint_id: str) -> list[bytes]:
    """The verified contents of a checkpoint's pages, in order."""
    store = await Store.open(data_dir)
    try:
        checkpoint = await store.catalog.get_checkpoint(_OWNER, checkpoint_id)
        manifest = manifests.decode(await store.catalog.manifest(checkpoint))
        kept = (page.ref for page in manifest.pages)
        return [bytes(await store.get_page(_OWNER, ref, max_raw_bytes=_MAX_PAGE_BYTES)) for ref in kept]
    finally:
        await store.close()


async def read(data_dir: Path, checkpoint_id: str, layers: int) -> list[Bytes]:
    """Positions, then the tensors of a checkpoint, each [cells, bytes], however its pages were cut.

    `layers` is the number of tensors, all of one width.
    """
    parts = [_split(page, layers) for page in await pages(data_dir, checkpoint_id)]
    return [np.concatenate(tensor) for tensor in zip(*parts, strict=True)]


def _split(page: bytes, layers: int) -> list[Bytes]:
    _, _, _, cells, row_bytes = _HEADER.unpack_from(page)
    body = np.frombuffer(page, np.uint8, offset=_HEADER.size)
    positions, rows = body[: 4 * cells], body[4 * cells :]
    return [positions.reshape(cells, 4), *rows.reshape(layers, cells, row_bytes // layers)]
