"""What Limpet is examined on: conversations with one right last answer, drawn from a held-out seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import wording
from .chats import Part
from .dialogues import Message, Talk
from .drawing import draw_at_any_size
from .questions import TOPICS, Question, ask_about, pick
from .scenes import Scene, sample_scene

ASKED = tuple(topic for topic in TOPICS if topic != "describe")
SWAPPED = ("colour", "kind", "count", "number", "where")
FILLER = 1000
"""Tokens of further chat before something is asked back in a recall case."""


@dataclass(frozen=True, slots=True)
class Case:
    """`before` are user messages to send first, `filler` more of them to send while there is room for the
    FILLER tokens (none: no filler), then `ask`, to be answered `answer`."""

    topic: str
    system: str | None
    before: list[list[Part]]
    ask: list[Part]
    answer: str
    filler: list[list[Part]] | None = None


def single(rng: np.random.Generator) -> list[Case]:
    """One picture, one question; in one message either way round, or in two."""
    scene = sample_scene(rng)
    question = ask_about(rng, scene)
    while question.topic not in ASKED:
        question = ask_about(rng, scene)
    return [_single(rng, _system(rng), scene, question)]


def _single(rng: np.random.Generator, system: str | None, scene: Scene, question: Question) -> Case:
    picture, way = draw_at_any_size(scene, rng), rng.random()
    before: list[list[Part]] = [[picture]] if way < 0.2 else []
    asks: list[Part] = (
        [question.ask] if before else [picture, question.ask] if way < 0.65 else [question.ask, picture]
    )
    return Case(question.topic, system, before, asks, question.answer)


def swap(rng: np.random.Generator) -> list[Case]:
    """The same words about two pictures that call for different answers."""
    while True:
        one, other = sample_scene(rng), sample_scene(rng)
        topic = pick(rng, SWAPPED)
        try:
            question = ask_about(rng, one, topic)
            for _ in range(60):
                again = ask_about(rng, other, topic)
                if again.ask == question.ask and again.answer != question.answer:
                    system = _system(rng)
                    seed = int(rng.integers(2**31))
                    return [
                        _single(np.random.default_rng(seed), system, scene, asked)
                        for scene, asked in ((one, question), (other, again))
                    ]
        except LookupError:
            continue


def earlier(rng: np.random.Generator) -> list[Case]:
    """Three or four pictures, then a question about one that has at least one other after it."""
    talk = _Pictured(rng)
    count = int(rng.integers(3, 5))
    before: list[list[Part]] = []
    while len(talk.talk.shown) < count:
        before += talk.users(talk.talk.show())
        before += talk.users(talk.talk.ask() if rng.random() < 0.5 else talk.talk.chat())
    which = int(rng.integers(count - 1))
    exchange = talk.talk.about(which, _plain_topic(rng, talk.talk, which))
    return [talk.case(exchange, before, None)]


def recall(rng: np.random.Generator) -> list[Case]:
    """A told fact, or the first picture, asked back after FILLER tokens of other talk."""
    talk = _Pictured(rng)
    fact = rng.random() < 0.5
    first: list[Message] = []
    while not first:
        first = talk.talk.tell() if fact else talk.talk.show()
    before = talk.users(first)
    filler: list[list[Part]] = []
    for _ in range(90):
        filler += talk.users(talk.filler())
    exchange = (
        talk.talk.recall(next(iter(talk.talk.told)))
        if fact
        else talk.talk.about(0, _plain_topic(rng, talk.talk, 0))
    )
    return [talk.case(exchange, before, filler)]


MAKERS: dict[str, Callable[[np.random.Generator], list[Case]]] = {
    "single": single,
    "earlier": earlier,
    "recall": recall,
    "swap": swap,
}


def _system(rng: np.random.Generator) -> str | None:
    return pick(rng, wording.SYSTEMS) if rng.random() < 0.5 else None


def _plain_topic(rng: np.random.Generator, talk: Talk, which: int) -> str:
    """A topic that picture `which` has something plain to ask about."""
    while True:
        topic = pick(rng, ASKED)
        try:
            ask_about(rng, talk.scenes[talk.shown[which]], topic)
        except LookupError:
            continue
        return topic


class _Pictured:
    """A Talk over scenes of its own, and its messages with pictures drawn."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._scenes = rng, [sample_scene(rng) for _ in range(8)]
        self.talk = Talk(rng, self._scenes, most_pictures=5)
        self._system = _system(rng)

    def users(self, exchange: list[Message]) -> list[list[Part]]:
        """The user's messages of an exchange."""
        return [self._drawn(message) for message in exchange if message.role == "user"]

    def _drawn(self, message: Message) -> list[Part]:
        return [
            part if isinstance(part, str) else draw_at_any_size(self._scenes[part], self._rng)
            for part in message.parts
        ]

    def filler(self) -> list[Message]:
        """Small talk, new pictures, and questions about the latest of those; nothing that helps."""
        dice, shown = self._rng.random(), len(self.talk.shown)
        if dice < 0.12:
            return self.talk.show()
        if dice < 0.45 and shown > 1:
            return self.talk.about(shown - 1)
        return self.talk.chat()

    def case(
        self, exchange: list[Message], before: list[list[Part]], filler: list[list[Part]] | None
    ) -> Case:
        answer = exchange[1].parts[0]
        assert isinstance(answer, str)
        return Case(exchange[1].topic, self._system, before, self._drawn(exchange[0]), answer, filler)
