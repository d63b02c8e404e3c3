"""A checkpoint's manifest: which pages hold its cells, in order.

JSON, version 1:

    {"v": 1, "cells": 511, "pages": [{"cells": 256, "page": {...}}, ...], "logits": {...} | null}

`page` and `logits` are the store's own references (digest, checksum, sizes).
`logits` is there when the session ends in a picture: the last row, float32.
The catalog keeps the manifest's digest and verifies it on every read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from holdfast_server.store.damage import ManifestCorrupt
from holdfast_server.store.pages import PageRef

_VERSION = 1


@dataclass(frozen=True, slots=True)
class ManifestPage:
    """A page in the store, and how many cells it holds."""

    cells: int
    ref: PageRef


@dataclass(frozen=True, slots=True)
class Manifest:
    """The pages of one checkpoint."""

    pages: tuple[ManifestPage, ...] = ()
    logits: PageRef | None = None

    @property
    def cells(self) -> int:
        """Cells that the pages hold together."""
        return sum(page.cells for page in self.pages)

    @property
    def refs(self) -> list[PageRef]:
        """Everything it refers to in the store."""
        return [page.ref for page in self.pages] + ([self.logits] if self.logits else [])


def encode(manifest: Manifest) -> bytes:
    """The bytes of a manifest."""
    data = {
        "v": _VERSION,
        "cells": manifest.cells,
        "pages": [{"cells": page.cells, "page": asdict(page.ref)} for page in manifest.pages],
        "logits": asdict(manifest.logits) if manifest.logits else None,
    }
    return json.dumps(data, separators=(",", ":")).encode()


def decode(data: bytes) -> Manifest:
    """The inverse of `encode`. Raises ManifestCorrupt for what no server of this version wrote."""
    try:
        raw = json.loads(data)
        if raw["v"] > _VERSION:
            raise ManifestCorrupt(f"the manifest has version {raw['v']}, of a newer holdfast")
        pages = tuple(ManifestPage(page["cells"], PageRef(**page["page"])) for page in raw["pages"])
        manifest = Manifest(pages, PageRef(**raw["logits"]) if raw["logits"] else None)
        if raw["v"] != _VERSION or raw["cells"] != manifest.cells:
            raise ManifestCorrupt("the manifest does not add up")
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestCorrupt("the manifest cannot be read") from error
    return manifest
