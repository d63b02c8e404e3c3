"""Scenes, their labels and the questions about them."""

from __future__ import annotations

import numpy as np
import pytest

from models.limpet.drawing import EDGE, draw_at_any_size, fit
from models.limpet.questions import TOPICS, ask_about
from models.limpet.scenes import (
    COLOURS,
    GRID,
    KINDS,
    LABEL_CLASSES,
    Scene,
    Shape,
    patch_labels,
    place,
    sample_scene,
)

CIRCLE = Shape(kind=0, colour=0, x=0.2, y=0.2, radius=0.1, big=False)
SQUARE = Shape(kind=1, colour=2, x=0.8, y=0.25, radius=0.17, big=True)
TWO = Scene((CIRCLE, SQUARE), 47, 0.5, 0.8)


def test_the_same_seed_draws_the_same_picture() -> None:
    pictures = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        pictures.append(draw_at_any_size(sample_scene(rng), rng).tobytes())
    assert pictures[0] == pictures[1]


def test_any_picture_fits_the_eye() -> None:
    rng = np.random.default_rng(6)
    assert all(fit(draw_at_any_size(sample_scene(rng), rng)).size == (EDGE, EDGE) for _ in range(20))


def test_shapes_differ_in_kind_and_colour_and_stay_inside() -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        shapes = sample_scene(rng).shapes
        assert len({shape.kind for shape in shapes}) == len({shape.colour for shape in shapes}) == len(shapes)
        assert all(shape.radius < shape.x < 1 - shape.radius for shape in shapes)


def test_labels_say_what_lies_where() -> None:
    labels = patch_labels(TWO).reshape(GRID, GRID, len(LABEL_CLASSES))
    column = list(LABEL_CLASSES).index
    assert labels[1, 1, column("kind")] == 1 + CIRCLE.kind
    assert labels[1, 1, column("colour_right")] == 1 + SQUARE.colour
    assert labels[1, 1, column("kind_left")] == 0
    assert labels[6, 4, column("kind")] == len(KINDS) + 1
    assert (labels[..., column("tens")] == 4).all() and (labels[..., column("ones")] == 7).all()
    assert (labels[..., column("count")] == 1).all()


def test_beside_refuses_where_a_person_would_hesitate() -> None:
    assert TWO.beside(SQUARE, "left") is CIRCLE and TWO.beside(CIRCLE, "left") is None
    close = Scene((CIRCLE, Shape(1, 2, 0.26, 0.8, 0.1, False)), None)
    with pytest.raises(LookupError):
        close.beside(CIRCLE, "right")


def test_places_have_a_gap_between_them() -> None:
    assert place(CIRCLE) == 0
    assert place(Shape(0, 0, 0.4, 0.5, 0.1, False)) is None


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_can_be_asked(topic: str) -> None:
    rng = np.random.default_rng(8)
    asked = 0
    while asked < 20:
        try:
            question = ask_about(rng, sample_scene(rng), topic)
        except LookupError:
            continue
        asked += 1
        assert question.ask[-1] in "?." and question.answer.endswith(".")
        assert "{" not in question.ask + question.answer


def test_answers_are_true() -> None:
    rng = np.random.default_rng(9)
    answers = {ask_about(rng, TWO, "number").answer for _ in range(20)}
    assert answers == {"The number is 47."}
    for _ in range(20):
        answer = ask_about(rng, TWO, "colour").answer
        assert answer in {f"The {KINDS[s.kind]} is {COLOURS[s.colour]}." for s in TWO.shapes}
