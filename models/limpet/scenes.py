"""What a picture shows: one to three shapes and, mostly, a two-digit number.

A scene is pure data in the unit square (x to the right, y downwards, 0..1). ``drawing`` turns it into
pixels, ``dialogues`` asks about it, and :func:`patch_labels` says what a vision encoder should know
about each of its 8 x 8 cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KINDS = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SIDES = ("left", "right", "above", "below")
PLACES = (
    "at the top left", "at the top", "at the top right",
    "on the left", "in the middle", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
GRID = 8
"""Cells along each edge that the vision encoder answers for: its 64 tokens."""

IGNORE = -1
NO_DIGIT = 10
LABEL_CLASSES = {
    "kind": len(KINDS) + 2,  # none, the shapes, number
    "colour": len(COLOURS) + 1,
    "size": 3,
    "place": len(PLACES),
    **{f"kind_{side}": len(KINDS) + 1 for side in SIDES},
    **{f"colour_{side}": len(COLOURS) + 1 for side in SIDES},
    "tens": 11,
    "ones": 11,
    "count": 3,
}
"""Label name to number of classes, in the column order of :func:`patch_labels`."""

_CLEAR = 0.13  # centres this far apart are plainly beside each other
_LEVEL = 0.03  # and this close, plainly not
_TRIES = 200


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape: what it is, its colour, its centre and half its extent, in fractions of the edge."""

    kind: int
    colour: int
    x: float
    y: float
    radius: float
    big: bool

    @property
    def name(self) -> str:
        return f"{COLOURS[self.colour]} {KINDS[self.kind]}"


@dataclass(frozen=True, slots=True)
class Scene:
    """The shapes of a picture, its number (10 to 99, or None) and the number's centre and font size."""

    shapes: tuple[Shape, ...]
    number: int | None
    number_x: float = 0.5
    number_y: float = 0.5
    number_size: float = 0.36

    def beside(self, shape: Shape, side: str) -> Shape | None:
        """The one shape plainly on that side; None if there is plainly none.

        Raises LookupError where a person might hesitate: two shapes there, or one only just.
        """
        offsets = [(other, _offset(shape, other, side)) for other in self.shapes if other is not shape]
        there = [other for other, offset in offsets if offset > _LEVEL]
        if not there:
            return None
        if len(there) > 1 or _offset(shape, there[0], side) < _CLEAR:
            raise LookupError("not plain which shape is on that side")
        return there[0]


def _offset(shape: Shape, other: Shape, side: str) -> float:
    """How far `other` lies from `shape` towards that side."""
    return {
        "left": shape.x - other.x,
        "right": other.x - shape.x,
        "above": shape.y - other.y,
        "below": other.y - shape.y,
    }[side]


def place(shape: Shape) -> int | None:
    """Index into PLACES, or None near a border between two of them."""
    column, row = _third(shape.x), _third(shape.y)
    return None if column is None or row is None else 3 * row + column


def _third(value: float) -> int | None:
    if value < 0.38:
        return 0
    if value > 0.62:
        return 2
    return 1 if 0.43 < value < 0.57 else None


def sample_scene(rng: np.random.Generator, most_shapes: int = 3) -> Scene:
    """A scene whose parts do not touch; its shapes differ in kind and in colour."""
    while True:
        scene = _try_scene(rng, int(rng.integers(1, most_shapes + 1)))
        if scene is not None:
            return scene


def _try_scene(rng: np.random.Generator, count: int) -> Scene | None:
    taken: list[tuple[float, float, float, float]] = []
    number: int | None = None
    size = float(rng.uniform(0.30, 0.40))
    x = y = 0.5
    if rng.random() < 0.88:
        number = int(rng.integers(10, 100))
        spot = _spot(rng, 0.62 * size, 0.42 * size, taken)
        if spot is None:
            return None
        x, y = spot
    shapes = []
    kinds, colours = rng.permutation(len(KINDS))[:count], rng.permutation(len(COLOURS))[:count]
    for kind, colour in zip(kinds, colours, strict=True):
        big = bool(rng.random() < 0.5)
        radius = float(rng.uniform(0.155, 0.185) if big else rng.uniform(0.085, 0.115))
        spot = _spot(rng, radius, radius, taken)
        if spot is None:
            return None
        shapes.append(Shape(int(kind), int(colour), *spot, radius, big))
    return Scene(tuple(shapes), number, x, y, size)


def _spot(
    rng: np.random.Generator,
    half_width: float,
    half_height: float,
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float] | None:
    """A free centre for a box of that half extent, which it then takes; None if there was none."""
    gap = 0.015
    for _ in range(_TRIES):
        x = float(rng.uniform(half_width + gap, 1 - half_width - gap))
        y = float(rng.uniform(half_height + gap, 1 - half_height - gap))
        if all(
            abs(x - a) > half_width + w + gap or abs(y - b) > half_height + h + gap for a, b, w, h in taken
        ):
            taken.append((x, y, half_width, half_height))
            return x, y
    return None


def patch_labels(scene: Scene) -> npt.NDArray[np.int8]:
    """What is in each cell, row by row from the top left: shape (64, len(LABEL_CLASSES)).

    IGNORE where a label has no meaning (the place of an empty cell). tens, ones and count are facts of
    the whole picture, and every cell carries them.
    """
    columns = {name: np.full((GRID, GRID), IGNORE, np.int8) for name in LABEL_CLASSES}
    for name in ("kind", "colour", "size"):
        columns[name][:] = 0
    tens, ones = (NO_DIGIT, NO_DIGIT) if scene.number is None else divmod(scene.number, 10)
    columns["tens"][:], columns["ones"][:], columns["count"][:] = tens, ones, len(scene.shapes) - 1
    if scene.number is not None:
        cells = _cells(scene.number_x, scene.number_y, 0.56 * scene.number_size, 0.36 * scene.number_size)
        columns["kind"][cells] = len(KINDS) + 1
    for shape in scene.shapes:
        cells = _cells(shape.x, shape.y, 0.9 * shape.radius, 0.9 * shape.radius)
        for name, value in _shape_labels(scene, shape).items():
            columns[name][cells] = value
    return np.stack([columns[name].reshape(-1) for name in LABEL_CLASSES], axis=1)


def _shape_labels(scene: Scene, shape: Shape) -> dict[str, int]:
    where = place(shape)
    labels = {
        "kind": 1 + shape.kind,
        "colour": 1 + shape.colour,
        "size": 2 if shape.big else 1,
        "place": IGNORE if where is None else where,
    }
    for side in SIDES:
        try:
            other = scene.beside(shape, side)
        except LookupError:
            continue
        labels[f"kind_{side}"] = 0 if other is None else 1 + other.kind
        labels[f"colour_{side}"] = 0 if other is None else 1 + other.colour
    return labels


def _cells(x: float, y: float, half_width: float, half_height: float) -> npt.NDArray[np.bool_]:
    """The cells whose centres lie in that box, and always the one its centre is in: (8, 8) booleans."""
    centres = (np.arange(GRID) + 0.5) / GRID
    inside = (np.abs(centres - y) <= half_height)[:, None] & (np.abs(centres - x) <= half_width)[None, :]
    inside[min(int(y * GRID), GRID - 1), min(int(x * GRID), GRID - 1)] = True
    return inside
