"""A gemma 3: sliding windows in every other layer (iSWA), and pictures whose tokens all see one another."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.tiny.tokenizer import add_tokenizer
from models.tiny.transformer import (
    CHANNEL,
    END,
    SHAPE,
    STEADY,
    Gains,
    Weights,
    add_attention,
    add_attention_shape,
    add_feed_forward,
    add_shape,
)
from models.tiny.vision import Vision, add_encoder, add_vision_shape
from models.tiny.writer import ModelFile, model_file

VISION = Vision(image=64, patch=8)

WINDOW = 64
"""Cells a sliding-window layer sees: small, so that short tests leave it."""

MERGED_SIDE = 2
"""Patches along each side of the square that is averaged into one token."""


def write_model(path: Path, *, seed: int) -> None:
    """Write the text model."""
    with model_file(path, "gemma3", seed) as file:
        add_shape(file, SHAPE)
        add_attention_shape(file, SHAPE)
        file.add_hyperparameters({"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": 2})
        add_tokenizer(file, chat_template=True)
        weights = Weights(file)
        weights.add_embeddings(SHAPE.width, scale=SHAPE.width**-0.5)  # gemma multiplies by the root itself
        file.add_norm("output_norm", SHAPE.width)
        for layer in range(SHAPE.layers):
            _add_block(weights, f"blk.{layer}")


def write_projector(path: Path, *, seed: int) -> None:
    """Write the projector: 16 tokens a picture, whatever its size."""
    with model_file(path, "clip", seed) as file:
        add_vision_shape(file, VISION, "gemma3", SHAPE.width)
        file.add_keys({"clip.vision.projector.scale_factor": MERGED_SIDE})
        add_encoder(file, VISION)
        _add_projection(file)


def _add_block(weights: Weights, block: str) -> None:
    """Norms follow the mixer and the feed-forward here, so the gains are theirs."""
    file, gains, plain = weights.file, Gains(), Gains(1, 1, 1)
    file.add_norm(f"{block}.attn_norm", SHAPE.width)
    add_attention(weights, block, SHAPE, plain)
    for part in ("attn_q_norm", "attn_k_norm"):
        file.add_norm(f"{block}.{part}", SHAPE.head_width, scale=gains.attention)
    file.add_norm(f"{block}.post_attention_norm", SHAPE.width, scale=gains.mixer)
    file.add_norm(f"{block}.ffn_norm", SHAPE.width)
    add_feed_forward(weights, block, SHAPE, plain)
    file.add_norm(f"{block}.post_ffw_norm", SHAPE.width, scale=gains.feed_forward)


def _add_projection(file: ModelFile) -> None:
    """The projection has no bias: a channel which the last norm holds steady carries what a bias would."""
    scale, shift = np.ones(VISION.width, np.float32), np.zeros(VISION.width, np.float32)
    scale[0], shift[0] = 0, CHANNEL
    file.add("v.post_ln.weight", scale)
    file.add("v.post_ln.bias", shift)
    file.add_norm("mm.soft_emb_norm", VISION.width)
    projection = file.draw("mm.input_projection", (VISION.width, SHAPE.width), 2 / VISION.width**0.5)
    projection[0] = projection[:, [STEADY, END]] = 0
    projection[0, STEADY] = 1
    file.add("mm.input_projection.weight", projection)
