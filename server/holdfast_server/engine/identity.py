"""What must be equal for stored KV pages, or stored token ids, to mean the same."""

from __future__ import annotations

import json
from typing import Any

from blake3 import blake3

from holdfast_server.llama import library
from holdfast_server.llama.model import Model
from holdfast_server.llama.state import Layout

_VERSION = 1


def _digest(facts: dict[str, Any]) -> str:
    return blake3(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def compatibility_key(model_digest: str, projector_digest: str, layout: Layout) -> str:
    """Of everything that shapes KV bytes; hexadecimal, 64 digits.

    The layout stands for K and V types and for flash attention, which decides
    whether values are stored transposed. Thread counts, batch sizes and the
    size of the context change nothing that a page holds.
    """
    return _digest(
        {
            "format": _VERSION,
            "library": library.version(),
            "backend": library.backend(),
            "model": model_digest,
            "projector": projector_digest,
            "keys": [(layer.kind, layer.row_bytes) for layer in layout.keys],
            "values": [(layer.kind, layer.row_bytes) for layer in layout.values],
            "transposed": layout.transposed,
        }
    )


def token_key(model: Model, projector_digest: str) -> str:
    """Of everything that gives token ids and media spans their meaning; hexadecimal, 64 digits."""
    vocabulary = blake3(model.vocabulary_bytes).hexdigest()
    return _digest({"format": _VERSION, "vocabulary": vocabulary, "projector": projector_digest})
