"""The parts the text models share: shape, embeddings, attention and feed-forward weights.

Random weights collapse: they repeat one token, or end at once. Two channels of
the residual stream are therefore kept for themselves, and no block writes them:

    STEADY  the same for every token and every picture; the output rows of
            unprintable and control tokens are pushed down along it
    END     set by the byte END_OF_TRANSMISSION alone, which <|im_end|> follows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType

from models.tiny.tokenizer import VOCABULARY_SIZE, Control, is_printable
from models.tiny.writer import Array, ModelFile

STEADY, END = 0, 1

END_OF_TRANSMISSION = 0x04
"""The byte (Ctrl-D) after which every tiny model's most likely token is <|im_end|>."""

CHANNEL = 8.0
"""Value of a reserved channel that is set; the other channels of an embedding have a std of one."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a text model. Heads are wide enough for flash attention on GPUs."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 64
    feed_forward: int = 256
    context: int = 8192


SHAPE = Shape()

SQUARE_SHAPE = Shape(heads=2, kv_heads=1)
"""For architectures whose heads together must be as wide as the model."""


@dataclass(frozen=True)
class Gains:
    """How far each part's random weights are from unit variance."""

    attention: float = 2.0  # of queries and keys: how sharply a token picks what it attends to
    mixer: float = 1.0  # of what attention (or what stands in its place) adds to the residual stream
    feed_forward: float = 3.0


def add_shape(file: ModelFile, shape: Shape) -> None:
    """Write the hyperparameters that every model has."""
    file.add_hyperparameters(
        {
            "context_length": shape.context,
            "embedding_length": shape.width,
            "block_count": shape.layers,
            "feed_forward_length": shape.feed_forward,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "vocab_size": VOCABULARY_SIZE,
        }
    )


def add_attention_shape(file: ModelFile, shape: Shape, kv_heads: Sequence[int] = ()) -> None:
    """Write the hyperparameters of attention; `kv_heads`, one a layer, where the layers differ."""
    file.add_hyperparameters(
        {
            "attention.head_count": shape.heads,
            "attention.head_count_kv": list(kv_heads) or shape.kv_heads,
            "attention.key_length": shape.head_width,
            "attention.value_length": shape.head_width,
            "rope.dimension_count": shape.head_width,
            "rope.freq_base": 10000.0,
        }
    )


@dataclass(frozen=True)
class Weights:
    """Writes weight matrices of one type and keeps the reserved channels untouched."""

    file: ModelFile
    kind: GGMLQuantizationType = GGMLQuantizationType.F32

    def add_linear(self, name: str, outputs: int, inputs: int, gain: float = 1.0) -> None:
        """Write a matrix whose outputs have `gain` times the std of its inputs."""
        self.file.add(f"{name}.weight", self._draw(name, outputs, inputs, gain), self.kind)

    def add_into_residual(self, name: str, width: int, inputs: int, gain: float = 1.0) -> None:
        """Write a matrix whose outputs are added to the residual stream."""
        matrix = self._draw(name, width, inputs, gain)
        matrix[[STEADY, END]] = 0
        self.file.add(f"{name}.weight", matrix, self.kind)

    def add_embeddings(self, width: int, scale: float = 1.0) -> None:
        """Write the token embeddings, times `scale`, and the output matrix."""
        embedding = self.file.draw("token_embd", (VOCABULARY_SIZE, width), 1.0)
        embedding[:, STEADY] = CHANNEL
        embedding[:, END] = 0
        embedding[END_OF_TRANSMISSION, END] = CHANNEL
        self.file.add("token_embd.weight", embedding * np.float32(scale), self.kind)
        self.file.add("output.weight", self._output(width), self.kind)

    def _draw(self, name: str, outputs: int, inputs: int, gain: float) -> Array:
        return self.file.draw(name, (outputs, inputs), gain / inputs**0.5)

    def _output(self, width: int) -> Array:
        matrix = self.file.draw("output", (VOCABULARY_SIZE, width), 3 / width**0.5)
        silent = [token for token in range(VOCABULARY_SIZE) if not is_printable(token)]
        matrix[:, [STEADY, END]] = 0
        matrix[silent, STEADY] = -10
        matrix[Control.IM_END, END] = 30
        return matrix


def add_attention(weights: Weights, block: str, shape: Shape, gains: Gains) -> None:
    """Write the four projections of grouped-query attention."""
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    weights.add_linear(f"{block}.attn_q", queries, shape.width, gains.attention)
    weights.add_linear(f"{block}.attn_k", keys, shape.width, gains.attention)
    weights.add_linear(f"{block}.attn_v", keys, shape.width)
    weights.add_into_residual(f"{block}.attn_output", shape.width, queries, gains.mixer)


def add_feed_forward(weights: Weights, block: str, shape: Shape, gains: Gains) -> None:
    """Write the three matrices of a gated feed-forward layer."""
    weights.add_linear(f"{block}.ffn_gate", shape.feed_forward, shape.width)
    weights.add_linear(f"{block}.ffn_up", shape.feed_forward, shape.width)
    weights.add_into_residual(f"{block}.ffn_down", shape.width, shape.feed_forward, gains.feed_forward)
