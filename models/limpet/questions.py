"""Questions about one scene, each with its one right answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from . import wording
from .scenes import COLOURS, KINDS, PLACES, SIDES, Scene, Shape, place

T = TypeVar("T")
NOWHERE = 0
NUMBER = len(KINDS) + 1


@dataclass(frozen=True, slots=True)
class Question:
    """`topic` names the ability, `ask` the question without saying which picture, `answer` the reply, `look`
    the "kind" label of the cells where the answer is to be seen."""

    topic: str
    ask: str
    answer: str
    look: int = NOWHERE


TOPICS = {
    "colour": 4, "kind": 4, "count": 3, "number": 5, "beside": 6, "where": 5, "size": 2, "is_there": 4,
    "is_coloured": 3, "is_number": 1, "describe": 1, "missing": 4,
}  # fmt: skip
"""How often each is asked, relatively."""
_NAMES, _SHARES = list(TOPICS), np.array(list(TOPICS.values()), float) / sum(TOPICS.values())


def pick(rng: np.random.Generator, options: tuple[T, ...] | list[T]) -> T:
    return options[int(rng.integers(len(options)))]


def ask_about(rng: np.random.Generator, scene: Scene, topic: str | None = None) -> Question:
    """A random question about that scene (about that topic, where one is named), plain to answer."""
    while True:
        chosen = topic or _NAMES[int(rng.choice(len(_NAMES), p=_SHARES))]
        question = _ASKERS[chosen](rng, scene)
        if question is not None:
            return Question(chosen, *question)
        if topic is not None:
            raise LookupError(f"this scene has nothing plain to ask about {topic}")


Asked = tuple[str, str, int] | None
"""Question, answer, where to look."""


def _colour(rng: np.random.Generator, scene: Scene) -> Asked:
    shape = pick(rng, scene.shapes)
    kind = KINDS[shape.kind]
    return pick(rng, wording.COLOUR).format(k=kind), f"The {kind} is {COLOURS[shape.colour]}.", 1 + shape.kind


def _kind(rng: np.random.Generator, scene: Scene) -> Asked:
    shape = pick(rng, scene.shapes)
    colour = COLOURS[shape.colour]
    return (
        pick(rng, wording.KIND).format(c=colour),
        f"The {colour} shape is a {KINDS[shape.kind]}.",
        1 + shape.kind,
    )


def _count(rng: np.random.Generator, scene: Scene) -> Asked:
    count = len(scene.shapes)
    answer = "There is one shape." if count == 1 else f"There are {wording.COUNTS[count]} shapes."
    return pick(rng, wording.COUNT), answer, NOWHERE


def _number(rng: np.random.Generator, scene: Scene) -> Asked:
    answer = "There is no number." if scene.number is None else f"The number is {scene.number}."
    return pick(rng, wording.NUMBER), answer, NOWHERE if scene.number is None else NUMBER


def _beside(rng: np.random.Generator, scene: Scene) -> Asked:
    if len(scene.shapes) == 1 and rng.random() < 0.8:
        return None
    shape, side = pick(rng, scene.shapes), pick(rng, SIDES)
    try:
        other = scene.beside(shape, side)
    except LookupError:
        return None
    if other is None and rng.random() < 0.5:
        return None
    answer = "There is nothing." if other is None else f"There is {_a(other)}."
    return pick(rng, wording.BESIDE[side]).format(k=KINDS[shape.kind]), answer, 1 + shape.kind


def _where(rng: np.random.Generator, scene: Scene) -> Asked:
    shape = pick(rng, scene.shapes)
    where = place(shape)
    if where is None:
        return None
    kind = KINDS[shape.kind]
    return pick(rng, wording.WHERE).format(k=kind), f"The {kind} is {PLACES[where]}.", 1 + shape.kind


def _size(rng: np.random.Generator, scene: Scene) -> Asked:
    shape = pick(rng, scene.shapes)
    kind = KINDS[shape.kind]
    return pick(rng, wording.SIZE).format(k=kind), f"The {kind} is {_size_word(shape)}.", 1 + shape.kind


def _is_there(rng: np.random.Generator, scene: Scene) -> Asked:
    truth = rng.random() < 0.5
    shape = pick(rng, scene.shapes)
    kind, colour = shape.kind, shape.colour
    if rng.random() < 0.5:
        if not truth:
            kind = _other(rng, len(KINDS), {shape.kind for shape in scene.shapes})
        return pick(rng, wording.IS_THERE).format(k=KINDS[kind]), *_yes(truth, shape)
    if not truth and rng.random() < 0.5:
        colour = _other(rng, len(COLOURS), {shape.colour})
    elif not truth:
        kind = _other(rng, len(KINDS), {shape.kind})
    ask = pick(rng, wording.IS_THERE_COLOURED).format(k=KINDS[kind], c=COLOURS[colour])
    return ask.replace("a orange", "an orange"), *_yes(truth, shape)


def _is_coloured(rng: np.random.Generator, scene: Scene) -> Asked:
    shape = pick(rng, scene.shapes)
    truth = rng.random() < 0.5
    colour = shape.colour if truth else _other(rng, len(COLOURS), {shape.colour})
    ask = pick(rng, wording.IS_COLOURED).format(k=KINDS[shape.kind], c=COLOURS[colour])
    return ask, "Yes." if truth else "No.", 1 + shape.kind


def _is_number(rng: np.random.Generator, scene: Scene) -> Asked:
    if scene.number is None:
        return None
    truth = rng.random() < 0.5
    number = scene.number if truth else 10 + _other(rng, 90, {scene.number - 10})
    return pick(rng, wording.IS_NUMBER).format(n=number), "Yes." if truth else "No.", NUMBER


def _describe(rng: np.random.Generator, scene: Scene) -> Asked:
    things = [f"a {_size_word(shape)} {shape.name}" for shape in sorted(scene.shapes, key=lambda s: s.x)]
    if scene.number is not None:
        things.append(f"the number {scene.number}")
    listed = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
    return pick(rng, wording.DESCRIBE), f"I see {listed}.", NOWHERE


def _missing(rng: np.random.Generator, scene: Scene) -> Asked:
    kind = KINDS[_other(rng, len(KINDS), {shape.kind for shape in scene.shapes})]
    ways = (wording.COLOUR, wording.COLOUR, wording.WHERE, wording.SIZE, wording.BESIDE["left"])
    return pick(rng, pick(rng, ways)).format(k=kind), f"There is no {kind}.", NOWHERE


def _yes(truth: bool, shape: Shape) -> tuple[str, int]:
    return ("Yes.", 1 + shape.kind) if truth else ("No.", NOWHERE)


def _size_word(shape: Shape) -> str:
    return "big" if shape.big else "small"


def _a(shape: Shape) -> str:
    return f"{'an' if COLOURS[shape.colour] == 'orange' else 'a'} {shape.name}"


def _other(rng: np.random.Generator, count: int, taken: set[int]) -> int:
    return pick(rng, [value for value in range(count) if value not in taken])


_ASKERS = {
    "colour": _colour, "kind": _kind, "count": _count, "number": _number, "beside": _beside, "where": _where,
    "size": _size, "is_there": _is_there, "is_coloured": _is_coloured, "is_number": _is_number,
    "describe": _describe, "missing": _missing,
}  # fmt: skip
