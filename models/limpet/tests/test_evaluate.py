"""The examination itself, taken by stand-ins that know all answers, or none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models.limpet.cases import FILLER, MAKERS, Case, recall, swap
from models.limpet.chats import Chat, Part
from models.limpet.evaluate import answer, right


class Parrot:
    """Answers everything with one sentence and counts ten tokens a message."""

    def __init__(self, sentence: str) -> None:
        self.sentence, self.heard = sentence, list[list[Part]]()

    @property
    def length(self) -> int:
        return 10 * len(self.heard)

    def say(self, parts: list[Part]) -> str:
        self.heard.append(parts)
        return self.sentence

    def close(self) -> None: ...


class ParrotLine:
    def __init__(self, sentence: str) -> None:
        self.chat = Parrot(sentence)

    def open(self, system: str | None = None) -> Chat:
        del system
        return self.chat

    def close(self) -> None: ...


@pytest.mark.parametrize("ability", MAKERS)
def test_the_same_seed_makes_the_same_cases(ability: str) -> None:
    one, two = (MAKERS[ability](np.random.default_rng(4)) for _ in range(2))
    assert [(case.answer, len(case.before)) for case in one] == [
        (case.answer, len(case.before)) for case in two
    ]


def test_a_swap_calls_for_two_answers_to_the_same_words() -> None:
    one, two = swap(np.random.default_rng(1))
    words = [[part for part in case.ask if isinstance(part, str)] for case in (one, two)]
    assert words[0] == words[1] and one.answer != two.answer


def test_a_recall_case_is_asked_only_after_the_filler() -> None:
    short = Case("recall", None, [["a"]], ["b"], "c", [["x"]] * (FILLER // 10 + 5))
    line = ParrotLine("c")
    assert answer(line, short) == "c"
    assert len(line.chat.heard) == 1 + FILLER // 10 + 1


def test_filler_that_runs_out_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        answer(ParrotLine("c"), Case("recall", None, [], ["b"], "c", [["x"]]))


def test_recall_filler_shows_no_hint() -> None:
    for seed in range(10):
        case = recall(np.random.default_rng(seed))[0]
        assert case.filler is not None and len(case.filler) > 60
        assert isinstance(case.before[0][0], (str, Image.Image))


def test_right_forgives_case_and_spacing_only() -> None:
    assert right(" the number is  47.", "The number is 47.")
    assert not right("The number is 48.", "The number is 47.")
