"""Limpet, the model that comes along, for servers that are given none."""

from __future__ import annotations

from pathlib import Path

_DATA = Path(__file__).parent / "data"
MODEL = _DATA / "limpet.gguf"
PROJECTOR = _DATA / "limpet-mmproj.gguf"
NOTICE = (
    "holdfast: no model was given, so this is Limpet, a very small one that sees coloured shapes and "
    "numbers; serve a real one with -m MODEL.gguf --mmproj PROJECTOR.gguf"
)
