"""GGUF models for the benchmarks: seeded random weights, shaped for what is measured.

    kv-heavy  few weights and 32 KiB of KV (f16) a token, so that state work shows and
              computing does not; llama architecture, with a small projector for pictures

Weights, vocabulary and projector are those of `models.tiny`: one token a byte,
readable output, no end of turn by itself. Equal versions give equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.bench import kv_heavy
from models.tiny import llava

__all__ = ["NAMES", "BenchModel", "make"]

NAMES: tuple[str, ...] = ("kv-heavy",)


@dataclass(frozen=True)
class BenchModel:
    """A model on disk, and its projector."""

    name: str
    model: Path
    projector: Path


def make(name: str, folder: Path) -> BenchModel:
    """Write the model's files into `folder` if they are not there yet. Raises KeyError for another name."""
    if name not in NAMES:
        raise KeyError(name)
    made = BenchModel(name, folder / f"{name}.gguf", folder / f"mmproj-{name}.gguf")
    if not made.model.exists():
        kv_heavy.write_model(made.model)
    if not made.projector.exists():
        llava.write_projector(made.projector, seed=1, text_width=kv_heavy.SHAPE.width)
    return made
