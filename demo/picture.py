"""The picture that the story is about."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (640, 480)
_SKY, _SEA, _DEEP = (190, 222, 233), (58, 128, 149), (22, 66, 88)
_ROCK, _KELP, _SUN = (84, 76, 72), (94, 110, 42), (246, 196, 92)
_HORIZON, _FLOOR = 150, 420


def draw(path: Path) -> None:
    """Draws kelp that holds fast to its rock, and saves it as a JPEG."""
    picture = Image.new("RGB", SIZE, _SKY)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((480, 40, 560, 120), fill=_SUN)
    _water(pen)
    pen.ellipse((170, _FLOOR - 60, 470, SIZE[1] + 40), fill=_ROCK)
    for root in range(230, 420, 38):
        pen.line(_blade(root), fill=_KELP, width=11, joint="curve")
    picture.save(path, format="JPEG", quality=90)


def _water(pen: ImageDraw.ImageDraw) -> None:
    """From light at the surface to dark at the bottom."""
    depth = SIZE[1] - _HORIZON
    for y in range(depth):
        shade = tuple(round(a + (b - a) * y / depth) for a, b in zip(_SEA, _DEEP, strict=True))
        pen.line((0, _HORIZON + y, SIZE[0], _HORIZON + y), fill=shade)


def _blade(root: int) -> list[tuple[float, float]]:
    """A blade of kelp, bent by the current."""
    length = 190 + root % 90
    return [(root + rise * 0.25 + 14 * math.sin(rise / 24), _FLOOR - rise) for rise in range(0, length, 6)]
