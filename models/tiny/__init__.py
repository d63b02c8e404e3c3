"""Tiny GGUF models with seeded random weights, for tests through the real llama.cpp.

They load in milliseconds and have every shape of memory llama.cpp knows. They
say nothing of sense; equal seeds give equal bytes. Only tests use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gguf import GGMLQuantizationType

from models.tiny import gemma3, lfm2, llama, llava, mamba, qwen2vl

__all__ = ["NAMES", "TinyModel", "make"]


@dataclass(frozen=True)
class TinyModel:
    """A model on disk. `memory` is "plain", "mrope", "iswa", "hybrid" or "recurrent"."""

    name: str
    model: Path
    projector: Path | None
    memory: str


@dataclass(frozen=True)
class _Recipe:
    memory: str
    write_model: Callable[[Path], None]
    write_projector: Callable[[Path], None] | None = None


def _recipe(
    memory: str, model: Callable[..., None], projector: Callable[..., None], seed: int = 1
) -> _Recipe:
    return _Recipe(memory, partial(model, seed=seed), partial(projector, seed=seed))


_RECIPES = {
    "llama": _recipe("plain", llama.write_model, llava.write_projector),
    "llama-notemplate": _Recipe("plain", partial(llama.write_model, seed=1, chat_template=False)),
    "llama-other": _recipe("plain", llama.write_model, llava.write_projector, seed=2),
    "llama-wide": _recipe(
        "plain",
        partial(llama.write_model, shape=llama.WIDE_SHAPE),
        partial(llava.write_projector, text_width=llama.WIDE_SHAPE.width),
        seed=3,
    ),
    "llama-q8_0": _recipe(
        "plain", partial(llama.write_model, kind=GGMLQuantizationType.Q8_0), llava.write_projector
    ),
    "qwen2vl": _recipe("mrope", qwen2vl.write_model, qwen2vl.write_projector),
    "gemma3": _recipe("iswa", gemma3.write_model, gemma3.write_projector),
    "lfm2": _recipe("hybrid", lfm2.write_model, llava.write_projector),
    "mamba": _recipe("recurrent", mamba.write_model, llava.write_projector),
}

NAMES: tuple[str, ...] = tuple(_RECIPES)


def make(name: str, folder: Path) -> TinyModel:
    """Write the model's files into `folder` if they are not there yet.

    A file that is there is taken as it is, whatever wrote it. Safe when several
    processes do the same at once. Raises KeyError for a name not in NAMES.
    """
    recipe = _RECIPES[name]
    model, projector = folder / f"{name}.gguf", folder / f"mmproj-{name}.gguf"
    if not model.exists():
        recipe.write_model(model)
    if recipe.write_projector is None:
        return TinyModel(name, model, None, recipe.memory)
    if not projector.exists():
        recipe.write_projector(projector)
    return TinyModel(name, model, projector, recipe.memory)
