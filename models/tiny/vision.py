"""The parts the projectors share: a small vision transformer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.tiny.transformer import CHANNEL, END, STEADY
from models.tiny.writer import ModelFile


@dataclass(frozen=True)
class Vision:
    """Sizes of a vision transformer; `image` and `patch` are sides, in pixels."""

    image: int
    patch: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    feed_forward: int = 128

    @property
    def patches(self) -> int:
        """Patches of a square picture of the native size."""
        return (self.image // self.patch) ** 2


def add_vision_shape(file: ModelFile, vision: Vision, projector: str, text_width: int) -> None:
    """Write the hyperparameters that every projector has; `projector` is llama.cpp's name of its type."""
    file.add_keys(
        {
            "clip.projector_type": projector,
            "clip.has_vision_encoder": True,
            "clip.vision.image_size": vision.image,
            "clip.vision.patch_size": vision.patch,
            "clip.vision.embedding_length": vision.width,
            "clip.vision.feed_forward_length": vision.feed_forward,
            "clip.vision.block_count": vision.layers,
            "clip.vision.attention.head_count": vision.heads,
            "clip.vision.attention.layer_norm_epsilon": 1e-6,
            "clip.vision.projection_dim": text_width,
            "clip.vision.image_mean": [0.5, 0.5, 0.5],
            "clip.vision.image_std": [0.25, 0.25, 0.25],
            "clip.use_gelu": True,
        }
    )


def add_encoder(file: ModelFile, vision: Vision) -> None:
    """Write patch embeddings, learned positions and transformer blocks."""
    add_patches(file, "v.patch_embd.weight", vision)
    file.add("v.position_embd.weight", file.draw("v.position_embd", (vision.patches, vision.width), 0.5))
    add_blocks(file, vision)


def add_patches(file: ModelFile, name: str, vision: Vision) -> None:
    """Write the convolution that turns one patch of pixels into one embedding."""
    pixels = 3 * vision.patch**2
    file.add(name, file.draw(name, (vision.width, 3, vision.patch, vision.patch), 1 / pixels**0.5))


def add_blocks(file: ModelFile, vision: Vision) -> None:
    """Write the transformer blocks."""
    for layer in range(vision.layers):
        _add_block(file, f"v.blk.{layer}", vision)


def add_affine(file: ModelFile, name: str, outputs: int, inputs: int) -> None:
    """Write a matrix that keeps the std of its inputs, and a zero bias."""
    file.add(f"{name}.weight", file.draw(name, (outputs, inputs), 1 / inputs**0.5))
    file.add_constant(f"{name}.bias", outputs, 0)


def add_last_affine(file: ModelFile, name: str, text_width: int, inputs: int) -> None:
    """Write the matrix into the text model's embeddings, with the reserved channels of a plain token."""
    matrix, bias = file.draw(name, (text_width, inputs), 2 / inputs**0.5), np.zeros(text_width, np.float32)
    matrix[[STEADY, END]] = 0
    bias[STEADY] = CHANNEL
    file.add(f"{name}.weight", matrix)
    file.add(f"{name}.bias", bias)


def _add_block(file: ModelFile, block: str, vision: Vision) -> None:
    file.add_norm(f"{block}.ln1", vision.width, bias=True)
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        add_affine(file, f"{block}.{part}", vision.width, vision.width)
    file.add_norm(f"{block}.ln2", vision.width, bias=True)
    add_affine(file, f"{block}.ffn_up", vision.feed_forward, vision.width)
    add_affine(file, f"{block}.ffn_down", vision.width, vision.feed_forward)
