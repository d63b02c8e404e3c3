"""Scenes as pixels: varied backgrounds, fonts, tints, outlines, noise and JPEG artefacts."""

from __future__ import annotations

import functools
import importlib.util
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .scenes import COLOURS, KINDS, Scene, Shape

RGB = tuple[int, int, int]
EDGE = 96
"""Pixels along each edge of what the vision encoder sees."""

_TINTS: dict[str, tuple[RGB, RGB]] = {
    "red": ((200, 30, 30), (255, 0, 0)),
    "green": ((0, 128, 0), (60, 200, 70)),
    "blue": ((0, 0, 255), (40, 90, 220)),
    "yellow": ((255, 255, 0), (240, 210, 40)),
    "orange": ((255, 165, 0), (240, 125, 25)),
    "purple": ((128, 0, 128), (150, 60, 200)),
    "black": ((0, 0, 0), (35, 35, 35)),
    "white": ((255, 255, 255), (235, 235, 235)),
}
_FONT_NAMES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif",
    "DejaVuSerif-Bold",
)  # fmt: skip


def draw_scene(
    scene: Scene, rng: np.random.Generator, width: int = 2 * EDGE, height: int = 2 * EDGE
) -> Image.Image:
    """An RGB picture of that many pixels."""
    fills = [_tint(rng, COLOURS[shape.colour]) for shape in scene.shapes]
    base = _background_colour(rng, fills)
    image = _background(rng, base, width, height)
    pen = ImageDraw.Draw(image)
    for shape, fill in zip(scene.shapes, fills, strict=True):
        _draw_shape(pen, shape, fill, rng, width, height)
    if scene.number is not None:
        _draw_number(pen, scene, _ink(rng, base), rng, width, height)
    return _jpeg(rng, _noise(rng, image))


def draw_at_any_size(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """As a person's picture comes: 96 to 240 pixels or so along an edge, a little wider or taller."""
    edge = EDGE * float(rng.uniform(1.0, 2.5))
    stretch = float(np.exp(rng.uniform(-0.2, 0.2)))
    return draw_scene(scene, rng, round(edge * stretch), round(edge / stretch))


def fit(image: Image.Image) -> Image.Image:
    """Stretched to EDGE x EDGE, bicubic: what mtmd does to any picture (without padding)."""
    return image if image.size == (EDGE, EDGE) else image.resize((EDGE, EDGE), Image.Resampling.BICUBIC)


def _tint(rng: np.random.Generator, colour: str) -> RGB:
    one, two = (np.array(end, float) for end in _TINTS[colour])
    return _rgb(one + rng.random() * (two - one) + rng.normal(0, 6, 3))


def _rgb(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> RGB:
    red, green, blue = (int(v) for v in np.clip(values, 0, 255))
    return red, green, blue


def _distance(one: RGB, two: RGB) -> float:
    return math.dist(one, two)


def _background_colour(rng: np.random.Generator, fills: list[RGB]) -> RGB:
    """A muted colour that every shape stands out from; the clearest of some, at worst."""
    best, clearest = (128, 128, 128), -1.0
    for _ in range(40):
        grey = rng.uniform(10, 250)
        base = _rgb(grey + rng.normal(0, 22, 3))
        contrast = min(_distance(base, fill) for fill in fills)
        if contrast > 115:
            return base
        if contrast > clearest:
            best, clearest = base, contrast
    return best


def _background(rng: np.random.Generator, base: RGB, width: int, height: int) -> Image.Image:
    """Plain, shaded, striped or chequered, in two close colours."""
    style = rng.random()
    if style < 0.45:
        return Image.new("RGB", (width, height), base)
    other = np.array(_rgb(np.array(base, float) + rng.normal(0, 13, 3)), float)
    across, down = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
    if style < 0.7:
        turn = rng.uniform(0, 2 * math.pi)
        mix = 0.5 + 0.5 * (math.cos(turn) * (2 * across - 1) + math.sin(turn) * (2 * down - 1)) / math.sqrt(2)
    elif style < 0.85:
        bands = rng.integers(3, 9)
        mix = np.floor((across if rng.random() < 0.5 else down) * bands) % 2 + 0 * across + 0 * down
    else:
        tiles = rng.integers(3, 9)
        mix = (np.floor(across * tiles) + np.floor(down * tiles)) % 2
    pixels = np.array(base, float) + mix[:, :, None] * (other - np.array(base, float))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: Shape, fill: RGB, rng: np.random.Generator, width: int, height: int
) -> None:
    x, y, rx, ry = shape.x * width, shape.y * height, shape.radius * width, shape.radius * height
    line = max(1, round(min(width, height) / 96))
    outline: RGB | None = _rgb(np.array(fill, float) * 0.6) if rng.random() < 0.25 else None
    kind = KINDS[shape.kind]
    box = (x - rx, y - ry, x + rx, y + ry)
    if kind == "circle":
        pen.ellipse(box, fill, outline, line)
    elif kind == "ring":
        pen.ellipse(box, None, fill, max(2, round(min(rx, ry) * rng.uniform(0.34, 0.44))))
    else:
        points = _outline_points(kind, rng)
        pen.polygon([(x + rx * px, y + ry * py) for px, py in points], fill, outline, line)


def _outline_points(kind: str, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Corners within the unit circle's box, turned a little."""
    turn = rng.normal(0, 0.09)
    if kind == "square":
        flat = [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    elif kind == "triangle":
        flat = [(0.0, -1.0), (0.95, 0.8), (-0.95, 0.8)]
    elif kind == "star":
        rays = [(1.0 if i % 2 == 0 else 0.42, math.pi * (i / 5 - 0.5)) for i in range(10)]
        flat = [(length * math.cos(angle), length * math.sin(angle)) for length, angle in rays]
    else:
        arm = rng.uniform(0.27, 0.36)
        flat = [
            (-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm),
            (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm),
        ]  # fmt: skip
    cos, sin = math.cos(turn), math.sin(turn)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in flat]


def _draw_number(
    pen: ImageDraw.ImageDraw, scene: Scene, ink: RGB, rng: np.random.Generator, width: int, height: int
) -> None:
    names = _fonts()
    font = _font(names[int(rng.integers(len(names)))], round(scene.number_size * min(width, height)))
    pen.text((scene.number_x * width, scene.number_y * height), str(scene.number), ink, font, anchor="mm")


def _ink(rng: np.random.Generator, base: RGB) -> RGB:
    """A colour for print that stands out from that background."""
    for _ in range(40):
        ink = _rgb(rng.uniform(0, 255, 3))
        if abs(sum(ink) - sum(base)) > 390 and _distance(ink, base) > 230:
            return ink
    return (0, 0, 0) if sum(base) > 382 else (255, 255, 255)


def _noise(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    if rng.random() < 0.5:
        return image
    pixels = np.asarray(image, np.float32)
    grain = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(1, 14))
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _jpeg(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    if rng.random() < 0.5:
        return image
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(45, 96)))
    return Image.open(buffer).convert("RGB")


@functools.cache
def _fonts() -> tuple[str, ...]:
    """Pillow's own font (the empty name) and, where matplotlib is installed, the DejaVu files it brings."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return ("",)
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return (
        "",
        "",
        *(str(folder / f"{name}.ttf") for name in _FONT_NAMES if (folder / f"{name}.ttf").exists()),
    )


@functools.lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
