"""A mamba: a recurrent state and no cache of cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.tiny.tokenizer import add_tokenizer
from models.tiny.transformer import SHAPE, Weights, add_shape
from models.tiny.writer import ModelFile, model_file

INNER = 2 * SHAPE.width
STATE, KERNEL, STEP_RANK = 16, 4, 8


def write_model(path: Path, *, seed: int) -> None:
    """Write the text model."""
    with model_file(path, "mamba", seed) as file:
        add_shape(file, SHAPE)
        _add_state_shape(file)
        add_tokenizer(file, chat_template=True)
        weights = Weights(file)
        weights.add_embeddings(SHAPE.width)
        file.add_norm("output_norm", SHAPE.width)
        for layer in range(SHAPE.layers):
            _add_block(file, weights, f"blk.{layer}")


def _add_state_shape(file: ModelFile) -> None:
    file.add_hyperparameters(
        {
            "ssm.conv_kernel": KERNEL,
            "ssm.inner_size": INNER,
            "ssm.state_size": STATE,
            "ssm.time_step_rank": STEP_RANK,
            "attention.head_count": 0,
        }
    )


def _add_block(file: ModelFile, weights: Weights, block: str) -> None:
    file.add_norm(f"{block}.attn_norm", SHAPE.width)
    weights.add_linear(f"{block}.ssm_in", 2 * INNER, SHAPE.width, gain=1.5)
    file.add(f"{block}.ssm_conv1d.weight", file.draw(f"{block}.ssm_conv1d", (INNER, KERNEL), KERNEL**-0.5))
    file.add_constant(f"{block}.ssm_conv1d.bias", INNER, 0)
    weights.add_linear(f"{block}.ssm_x", STEP_RANK + 2 * STATE, INNER)
    _add_recurrence(file, weights, block)
    weights.add_into_residual(f"{block}.ssm_out", SHAPE.width, INNER)


def _add_recurrence(file: ModelFile, weights: Weights, block: str) -> None:
    """Steps near 0.05 and decays of 1/8 to 2: the state remembers ten to a hundred and sixty tokens."""
    weights.add_linear(f"{block}.ssm_dt", INNER, STEP_RANK)
    file.add_constant(f"{block}.ssm_dt.bias", INNER, -3)
    decay = np.arange(1, STATE + 1, dtype=np.float32) / np.float32(-8)
    file.add(f"{block}.ssm_a", np.tile(decay, (INNER, 1)))
    file.add_constant(f"{block}.ssm_d", INNER, 1)
