"""Chats of many turns about several pictures and told facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from . import wording
from .questions import NOWHERE, Question, ask_about, pick
from .scenes import COLOURS, KINDS, Scene


@dataclass(frozen=True, slots=True)
class Message:
    """`parts`: strings, and integers that number pictures in the pool; `topic`: what an answer is about.

    Where an answer comes from, for training: `look`, which of the pictures shown (from 0) and the "kind"
    label of its cells there; `copied`, a word told before.
    """

    role: str
    parts: tuple[str | int, ...]
    topic: str = ""
    look: tuple[int, int] | None = None
    copied: str = ""


_SHARES = (3.0, 6.0, 1.2, 1.6, 1.2, 1.0)
_DRILL_SHARES = (1.0, 7.0, 0.5, 0.6, 0.9, 0.2)
"""How often each way to go on is taken, in the order of `Talk.turns`."""


class Talk:
    """One dialogue in the making: what was shown and told so far, and ways to go on.

    A drill asks more and chats less.
    """

    def __init__(
        self, rng: np.random.Generator, scenes: Sequence[Scene], most_pictures: int, drill: bool = False
    ) -> None:
        self.rng, self.scenes, self.most_pictures = rng, scenes, most_pictures
        self.shown: list[int] = []
        self.told: dict[str, tuple[str, str]] = {}
        self._shares = np.array(_DRILL_SHARES) if drill else rng.dirichlet(_SHARES)
        self._shares /= self._shares.sum()

    def turns(self) -> Iterator[list[Message]]:
        """Exchanges without end, each a list of messages that ends in an answer."""
        if self.rng.random() < 0.4:
            yield [Message("system", (pick(self.rng, wording.SYSTEMS),))]
        ways = (self.show, self.ask, self.which, self.tell, self.recall, self.chat)
        while True:
            exchange = ways[int(self.rng.choice(len(ways), p=self._shares))]()
            if exchange:
                yield exchange

    def show(self) -> list[Message]:
        """A new picture, with a question in the same message or without."""
        if len(self.shown) >= self.most_pictures:
            return []
        fresh = int(self.rng.integers(len(self.scenes)))
        self.shown.append(fresh)
        if self.rng.random() < 0.25:
            look = pick(self.rng, wording.LOOK)
            parts: list[str | int] = [fresh, look] if self.rng.random() < 0.5 else [look, fresh]
            return self._exchange("look", [part for part in parts if part != ""], wording.SEEN)
        question = ask_about(self.rng, self.scenes[fresh])
        ask = self._style(question.ask)
        if self.rng.random() < 0.15:
            ask = f"{pick(self.rng, wording.LOOK)} {ask}".strip()
        shown_first = self.rng.random() < 0.65
        parts = [fresh, ask] if shown_first else [ask, fresh]
        return self._answered(question.topic, parts, question, len(self.shown) - 1)

    def ask(self) -> list[Message]:
        """About the latest picture without saying so, or about any by its number."""
        if not self.shown:
            if self.rng.random() < 0.9:
                return []
            ask = pick(self.rng, wording.NUMBER + wording.COUNT)
            return self._exchange("no picture", [self._style(ask)], wording.NO_PICTURE)
        which = len(self.shown) - 1
        if which and self.rng.random() < 0.55:
            which = int(self.rng.integers(len(self.shown)))
            return self.about(which)
        question = ask_about(self.rng, self.scenes[self.shown[which]])
        ask = question.ask
        if self.rng.random() < 0.2:
            ask = self._in_picture(ask, pick(self.rng, wording.LAST))
        return self._answered(question.topic, [self._style(ask)], question, which)

    def about(self, which: int, topic: str | None = None) -> list[Message]:
        """A question that names picture `which` (counted from 0) by its ordinal."""
        question = ask_about(self.rng, self.scenes[self.shown[which]], topic)
        where = pick(self.rng, wording.IN_PICTURE).format(o=wording.ORDINALS[which], d=which + 1)
        topic = question.topic if which + 1 == len(self.shown) else f"earlier {question.topic}"
        return self._answered(topic, [self._style(self._in_picture(question.ask, where))], question, which)

    def which(self) -> list[Message]:
        """Which picture had this? Or how many there were."""
        if not self.shown or self.rng.random() < 0.1:
            count = len(self.shown)
            noun = "picture" if count == 1 else "pictures"
            answer = f"You have shown me {wording.COUNTS[count]} {noun}."
            return self._exchange(
                "how many", [self._style(pick(self.rng, wording.HOW_MANY_PICTURES))], answer
            )
        index = int(self.rng.integers(len(self.shown)))
        thing = self._only_in(index)
        if thing is None:
            return []
        ask = pick(self.rng, wording.WHICH).format(x=thing)
        return self._exchange("which", [self._style(ask)], f"The {wording.ORDINALS[index]} picture.")

    def tell(self) -> list[Message]:
        """A fact that was not told yet."""
        kind = pick(self.rng, list(wording.FACTS))
        if kind in self.told:
            return []
        word, pet = self._word(kind), pick(self.rng, wording.PETS)
        self.told[kind] = (word, pet)
        fact = wording.FACTS[kind]
        told = self._lower(pick(self.rng, fact.tell)).format(w=word, p=pet)
        return self._exchange("tell", [told], fact.reply.format(w=word), copied=word)

    def recall(self, kind: str | None = None) -> list[Message]:
        """A told fact asked back, or now and then one that never was."""
        known = list(self.told)
        if kind is None and (not known or self.rng.random() < 0.08):
            unknown = [name for name in wording.FACTS if name not in self.told]
            if not unknown or (not known and self.rng.random() < 0.7):
                return []
            ask = pick(self.rng, wording.FACTS[pick(self.rng, unknown)].ask).format(
                p=pick(self.rng, wording.PETS)
            )
            return self._exchange("not told", [self._style(ask)], wording.NOT_TOLD)
        kind = kind or pick(self.rng, known)
        (word, pet), fact = self.told[kind], wording.FACTS[kind]
        ask = pick(self.rng, fact.ask).format(p=pet)
        return self._exchange("recall", [self._style(ask)], fact.answer.format(w=word, p=pet), copied=word)

    def chat(self) -> list[Message]:
        """Small talk: greetings, remarks, and requests that are politely declined."""
        dice = self.rng.random()
        if dice < 0.35:
            return self._exchange("chat", [self._style(pick(self.rng, wording.DECLINED))], wording.DECLINE)
        if dice < 0.7:
            remark = " ".join(pick(self.rng, part) for part in wording.REMARK_PARTS[:4])
            remark += pick(self.rng, wording.REMARK_PARTS[4]) + "."
            return self._exchange("chat", [self._style(remark)], wording.REMARK_REPLY)
        answer = pick(self.rng, list(wording.GREETINGS))
        return self._exchange("chat", [self._style(pick(self.rng, wording.GREETINGS[answer]))], answer)

    def _exchange(self, topic: str, parts: list[str | int], answer: str, copied: str = "") -> list[Message]:
        return [Message("user", tuple(parts)), Message("assistant", (answer,), topic, copied=copied)]

    def _answered(self, topic: str, parts: list[str | int], question: Question, which: int) -> list[Message]:
        look = None if question.look == NOWHERE else (which, question.look)
        return [Message("user", tuple(parts)), Message("assistant", (question.answer,), topic, look)]

    def _in_picture(self, ask: str, where: str) -> str:
        if self.rng.random() < 0.5:
            return f"{where[0].upper()}{where[1:]}, {ask[0].lower()}{ask[1:]}"
        return f"{ask[:-1]} {where}{ask[-1]}"

    def _style(self, text: str) -> str:
        dice = self.rng.random()
        if dice < 0.02:
            return text.upper()
        if dice < 0.2:
            text = text.lower()
        return text.rstrip("?.!") if self.rng.random() < 0.1 else text

    def _lower(self, template: str) -> str:
        return template.lower() if self.rng.random() < 0.15 else template

    def _only_in(self, index: int) -> str | None:
        """Words for something that picture `index` has and no other one shown has; None if at a loss."""
        scene = self.scenes[self.shown[index]]
        others = [self.scenes[number] for place, number in enumerate(self.shown) if place != index]
        if self.rng.random() < 0.55:
            if scene.number is None or any(other.number == scene.number for other in others):
                return None
            return f"{pick(self.rng, ('the', 'the number', 'number'))} {scene.number}"
        shape = pick(self.rng, scene.shapes)
        same_kind = [s for other in others for s in other.shapes if s.kind == shape.kind]
        if not same_kind and self.rng.random() < 0.4:
            return f"{pick(self.rng, ('the', 'a'))} {KINDS[shape.kind]}"
        if any(s.colour == shape.colour for s in same_kind):
            return None
        return f"the {COLOURS[shape.colour]} {KINDS[shape.kind]}"

    def _word(self, kind: str) -> str:
        if kind == "code":
            return "".join(
                str(digit) for digit in self.rng.integers(0, 10, int(self.rng.choice((3, 4, 4, 4, 5))))
            )
        if kind == "favourite":
            return pick(self.rng, COLOURS)
        if self.rng.random() < 0.3:
            return self._made_up()
        return pick(self.rng, {"name": wording.NAMES, "city": wording.CITIES, "pet": wording.PET_NAMES}[kind])

    def _made_up(self) -> str:
        """A pronounceable word nobody has heard, so that copying is learned and not a list."""
        pairs = int(self.rng.integers(2, 4))
        letters = (
            pick(self.rng, list("bdfgklmnprstvz")) + pick(self.rng, list("aeiou")) for _ in range(pairs)
        )
        return ("".join(letters) + pick(self.rng, ("", "", "n", "s", "l"))).capitalize()
