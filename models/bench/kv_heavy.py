"""A llama with few weights (4 million) and much KV: 32 KiB a token in f16."""

from __future__ import annotations

from pathlib import Path

from models.tiny import llama
from models.tiny.transformer import Shape

SHAPE = Shape(width=128, layers=8, heads=8, kv_heads=8, head_width=128, feed_forward=256, context=32768)

KV_BYTES = SHAPE.layers * 2 * SHAPE.kv_heads * SHAPE.head_width * 2
"""Bytes of KV a token: keys and values of every layer, two bytes each."""


def write_model(path: Path) -> None:
    """Write the model."""
    llama.write_model(path, seed=1, shape=SHAPE)
