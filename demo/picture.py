"""The pictures that the story is about: what Limpet can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (480, 360)


@dataclass(frozen=True)
class Shape:
    """A shape and where it is, in pixels: left, top, right, bottom."""

    kind: str
    colour: str
    box: tuple[int, int, int, int]


def draw(path: Path, *shapes: Shape) -> None:
    """Draws shapes on white and saves them as a JPEG."""
    picture = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(picture)
    for shape in shapes:
        fill = pen.ellipse if shape.kind == "circle" else pen.rectangle
        fill(shape.box, fill=shape.colour)
    picture.save(path, format="JPEG", quality=90)
