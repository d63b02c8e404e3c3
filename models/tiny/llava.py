"""A LLaVA-style projector: 16 tokens a picture, whatever its size. It fits any text model of its width."""

from __future__ import annotations

from pathlib import Path

from models.tiny.transformer import SHAPE
from models.tiny.vision import Vision, add_affine, add_encoder, add_last_affine, add_vision_shape
from models.tiny.writer import model_file

VISION = Vision(image=32, patch=8)


def write_projector(path: Path, *, seed: int, text_width: int = SHAPE.width) -> None:
    """Write a vision transformer and a projector of two layers."""
    with model_file(path, "clip", seed) as file:
        add_vision_shape(file, VISION, "mlp", text_width)
        # By default LLaVA ignores the last block; this names the one to read.
        file.add_keys({"clip.vision.feature_layer": [VISION.layers]})
        add_encoder(file, VISION)
        file.add_norm("v.pre_ln", VISION.width, bias=True)
        add_affine(file, "mm.0", text_width, VISION.width)
        add_last_affine(file, "mm.2", text_width, text_width)
