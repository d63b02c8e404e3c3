"""A llama: plain attention over one cache."""

from __future__ import annotations

from pathlib import Path

from gguf import GGMLQuantizationType

from models.tiny.tokenizer import add_tokenizer
from models.tiny.transformer import (
    SHAPE,
    Gains,
    Shape,
    Weights,
    add_attention,
    add_attention_shape,
    add_feed_forward,
    add_shape,
)
from models.tiny.writer import model_file

WIDE_SHAPE = Shape(width=144)
"""Too wide for the other models' projectors."""


def write_model(
    path: Path,
    *,
    seed: int,
    shape: Shape = SHAPE,
    chat_template: bool = True,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> None:
    """Write the text model."""
    with model_file(path, "llama", seed) as file:
        add_shape(file, shape)
        add_attention_shape(file, shape)
        add_tokenizer(file, chat_template=chat_template)
        weights = Weights(file, kind)
        weights.add_embeddings(shape.width)
        file.add_norm("output_norm", shape.width)
        for layer in range(shape.layers):
            block = f"blk.{layer}"
            file.add_norm(f"{block}.attn_norm", shape.width)
            add_attention(weights, block, shape, Gains())
            file.add_norm(f"{block}.ffn_norm", shape.width)
            add_feed_forward(weights, block, shape, Gains())
