"""An lfm2: a hybrid of short convolutions, which keep a recurrent state, and attention."""

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
from models.tiny.writer import ModelFile, model_file

SHAPE, GAINS = SQUARE_SHAPE, Gains(mixer=2)

KV_HEADS = (0, SHAPE.kv_heads, 0, SHAPE.kv_heads)
"""A layer without key-value heads is a convolution."""

KERNEL = 3
"""Tokens a convolution sees; its state is one less."""


def write_model(path: Path, *, seed: int) -> None:
    """Write the text model."""
    with model_file(path, "lfm2", seed) as file:
        add_shape(file, SHAPE)
        add_attention_shape(file, SHAPE, KV_HEADS)
        file.add_hyperparameters({"shortconv.l_cache": KERNEL})
        add_tokenizer(file, chat_template=True)
        weights = Weights(file)
        weights.add_embeddings(SHAPE.width)
        file.add_norm("token_embd_norm", SHAPE.width)  # lfm2's name of the output norm
        for layer, kv_heads in enumerate(KV_HEADS):
            _add_block(weights, f"blk.{layer}", attention=kv_heads > 0)


def _add_block(weights: Weights, block: str, *, attention: bool) -> None:
    weights.file.add_norm(f"{block}.attn_norm", SHAPE.width)
    if attention:
        _add_normed_attention(weights, block)
    else:
        _add_convolution(weights.file, weights, block)
    weights.file.add_norm(f"{block}.ffn_norm", SHAPE.width)
    add_feed_forward(weights, block, SHAPE, GAINS)


def _add_normed_attention(weights: Weights, block: str) -> None:
    add_attention(weights, block, SHAPE, GAINS)
    for part in ("attn_q_norm", "attn_k_norm"):
        weights.file.add_norm(f"{block}.{part}", SHAPE.head_width, scale=GAINS.attention)


def _add_convolution(file: ModelFile, weights: Weights, block: str) -> None:
    name = f"{block}.shortconv"
    weights.add_linear(f"{name}.in_proj", 3 * SHAPE.width, SHAPE.width)
    file.add(f"{name}.conv.weight", file.draw(f"{name}.conv", (SHAPE.width, KERNEL), KERNEL**-0.5))
    weights.add_into_residual(f"{name}.out_proj", SHAPE.width, SHAPE.width, GAINS.mixer)
