"""Dialogues as rows of training tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from .dialogues import Message, Talk
from .scenes import Scene
from .tokenizer import BEGIN, END, IMAGE_END, IMAGE_START, START, Tokenizer

IMAGE_TOKENS = 64
MOST_PICTURES = 9
"""In one dialogue: as many as have an ordinal."""
DRILL_TOKENS = 320
IMAGE_SLOT = -1
"""Stands in a token row for each of a picture's 64 embeddings."""


@dataclass(slots=True)
class Row:
    """A dialogue as tokens: `tokens` with IMAGE_SLOT runs, `answers` true where the model must predict,
    `spans` the (start, end, topic) of each answer.

    Where answers come from: `looks` are (start, end, which picture of the row, "kind" label of its cells);
    `copies` are (position of a told word's token in an answer, an earlier position of the same).
    """

    tokens: list[int] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    spans: list[tuple[int, int, str]] = field(default_factory=list)
    looks: list[tuple[int, int, int, int]] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)


class Encoder:
    """Renders messages exactly as the chat template in the GGUF and mtmd do, behind a BEGIN token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._begin, self._start, self._end, self._open, self._close = (
            tokenizer.control(token) for token in (BEGIN, START, END, IMAGE_START, IMAGE_END)
        )

    def add(self, row: Row, message: Message) -> None:
        """Append a message to the row."""
        if not row.tokens:
            self._text(row, [self._begin], False)
        said = message.role == "assistant"
        self._text(row, [self._start, *self._tokenizer.encode(f"{message.role}\n")], False)
        start = len(row)
        for part in message.parts:
            if isinstance(part, str):
                self._text(row, self._tokenizer.encode(part), said)
                continue
            self._text(row, [self._open, *[IMAGE_SLOT] * IMAGE_TOKENS, self._close], False)
            row.pictures.append(part)
        self._text(row, [self._end], said)
        if said:
            row.spans.append((start, len(row), message.topic))
            self._trace(row, message, start)
        self._text(row, self._tokenizer.encode("\n"), False)

    def _trace(self, row: Row, message: Message, start: int) -> None:
        """Note where the answer that begins at `start` comes from."""
        if message.look is not None:
            row.looks.append((start, len(row), *message.look))
        if message.copied:
            word = self._tokenizer.encode(f" {message.copied}")
            said = row.tokens
            found = [i for i in range(len(said)) if said[i] == word[0] and said[i : i + len(word)] == word]
            row.copies += [
                (late + i, early + i)
                for late in found if late >= start
                for early in found if early < start
                for i in range(len(word))
            ]  # fmt: skip

    @staticmethod
    def _text(row: Row, tokens: list[int], said: bool) -> None:
        row.tokens += tokens
        row.answers += [said] * len(tokens)


def make_row(rng: np.random.Generator, scenes: Sequence[Scene], encoder: Encoder, length: int) -> Row:
    """A dialogue of at most `length` tokens, and nearly that; a drill if that is at most DRILL_TOKENS."""
    most_pictures = min(MOST_PICTURES, 1 + length // 170)
    talk, row = Talk(rng, scenes, most_pictures, drill=length <= DRILL_TOKENS), Row()
    for exchange in talk.turns():
        longer = Row(*(list(getattr(row, part.name)) for part in fields(Row)))
        for message in exchange:
            encoder.add(longer, message)
        if len(longer) > length:
            return row
        row = longer
    raise AssertionError("turns() never ends")


def pack(rows: Sequence[Row], pad: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], list[int]]:
    """Rows of one batch, padded: tokens (rows, time), answers (rows, time), pictures in reading order."""
    time = max(len(row) for row in rows)
    tokens = np.full((len(rows), time), pad, np.int64)
    answers = np.zeros((len(rows), time), np.bool_)
    for index, row in enumerate(rows):
        tokens[index, : len(row)], answers[index, : len(row)] = row.tokens, row.answers
    return tokens, answers, [picture for row in rows for picture in row.pictures]


def sentences(seed: int, scenes: Sequence[Scene], count: int) -> Iterator[str]:
    """Text of `count` exchanges, to learn the tokenizer from."""
    rng = np.random.default_rng(seed)
    while count > 0:
        for _, exchange in zip(range(25), Talk(rng, scenes, 5).turns(), strict=False):
            for message in exchange:
                yield f"{message.role}\n"
                yield from (part for part in message.parts if isinstance(part, str))
            count -= 1
