"""A qwen2vl: M-RoPE, where every token of a picture has one temporal position, and a row and a column."""

from __future__ import annotations

from pathlib import Path

from models.tiny.tokenizer import add_tokenizer
from models.tiny.transformer import (
    SQUARE_SHAPE,
    Gains,
    Weights,
    add_attention,
    add_attention_shape,
    add_feed_forward,
    add_shape,
)
from models.tiny.vision import Vision, add_affine, add_blocks, add_last_affine, add_patches, add_vision_shape
from models.tiny.writer import model_file

VISION = Vision(image=64, patch=16)

MERGED_PATCHES = 4
"""Patches that become one token: a square of two by two, 32 pixels wide."""


def write_model(path: Path, *, seed: int) -> None:
    """Write the text model."""
    shape = SQUARE_SHAPE
    with model_file(path, "qwen2vl", seed) as file:
        add_shape(file, shape)
        add_attention_shape(file, shape)
        file.add_hyperparameters({"rope.dimension_sections": [8, 12, 12, 0]})
        add_tokenizer(file, chat_template=True)
        weights = Weights(file)
        weights.add_embeddings(shape.width)
        file.add_norm("output_norm", shape.width)
        for block in (f"blk.{layer}" for layer in range(shape.layers)):
            file.add_norm(f"{block}.attn_norm", shape.width)
            add_attention(weights, block, shape, Gains())
            file.add_norm(f"{block}.ffn_norm", shape.width)
            add_feed_forward(weights, block, shape, Gains())


def write_projector(path: Path, *, seed: int) -> None:
    """Write the projector: one token for 32 by 32 pixels, at least 8 and at most 4096 a picture."""
    with model_file(path, "clip", seed) as file:
        add_vision_shape(file, VISION, "qwen2vl_merger", SQUARE_SHAPE.width)
        for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):  # a frame and the next; a still is both
            add_patches(file, name, VISION)
        add_blocks(file, VISION)
        file.add_norm("v.post_ln", VISION.width, bias=True)
        add_affine(file, "mm.0", VISION.width, VISION.width * MERGED_PATCHES)
        add_last_affine(file, "mm.2", SQUARE_SHAPE.width, VISION.width)
