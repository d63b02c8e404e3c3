"""``python -m models.limpet.evaluate``: how often Limpet is right, on conversations it was never trained on.

An answer counts as right only if it equals the expected sentence, letter case and spaces aside; a swap
only if it is right for both pictures.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from .cases import FILLER, MAKERS, Case
from .chats import Chat, Line, LlamaLine
from .engine import DATA, Engine

SEED = 20_000
"""The first held-out seed; training uses none of this family."""


def right(said: str, expected: str) -> bool:
    """Whether two sentences are the same but for case and spacing."""
    return _plain(said) == _plain(expected)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()


def answer(line: Line, case: Case) -> str:
    """Hold the case's conversation and return the last answer."""
    chat = line.open(case.system)
    try:
        for parts in case.before:
            chat.say(parts)
        _fill(chat, case)
        return chat.say(case.ask)
    finally:
        chat.close()


def _fill(chat: Chat, case: Case) -> None:
    start = chat.length
    for parts in case.filler or []:
        if chat.length - start >= FILLER:
            return
        chat.say(parts)
    if case.filler is not None and chat.length - start < FILLER:
        raise RuntimeError("the filler of a recall case ran out")


class Report:
    """Counts of right answers, by ability and by topic within it; `wrong` keeps examples to read."""

    def __init__(self) -> None:
        self.scores: dict[str, list[bool]] = defaultdict(list)
        self.topics: dict[str, list[bool]] = defaultdict(list)
        self.wrong: list[str] = []

    def examine(self, line: Line, ability: str, number: int) -> None:
        """Put case `number` of that ability to the model."""
        rng = np.random.default_rng([SEED, list(MAKERS).index(ability), number])
        verdicts = []
        for case in MAKERS[ability](rng):
            said = answer(line, case)
            verdicts.append(right(said, case.answer))
            self.topics[f"{ability}: {case.topic}"].append(verdicts[-1])
            if not verdicts[-1]:
                words = [part for part in case.ask if isinstance(part, str)]
                self.wrong.append(f"{ability}: {' '.join(words)!r} -> {said!r}, not {case.answer!r}")
        self.scores[ability].append(all(verdicts))

    def summary(self, count: int) -> dict[str, float]:
        return {**{name: round(float(np.mean(hits)), 4) for name, hits in self.scores.items()}, "n": count}


def evaluate(line: Line, count: int) -> Report:
    """`count` cases of each ability."""
    report = Report()
    for ability in MAKERS:
        for number in range(count):
            report.examine(line, ability, number)
    return report


def open_line(address: str | None, data: Path) -> Line:
    """Holdfast's service at that address, or llama.cpp in this process."""
    if address is None:
        return LlamaLine(Engine(data / "limpet.gguf", data / "limpet-mmproj.gguf"))
    from .service import HoldfastLine  # the client is not needed to evaluate in this process

    return HoldfastLine(address)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.limpet.evaluate", description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="cases of each ability (default: 200)")
    parser.add_argument("--json", action="store_true", help="print the scores as one JSON object, last")
    parser.add_argument("--address", metavar="HOST:PORT", help="a Holdfast service that serves Limpet")
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder of the two GGUF files, without --address"
    )
    parser.add_argument("--wrong", type=int, default=0, metavar="N", help="also print N wrong answers")
    arguments = parser.parse_args()
    line = open_line(arguments.address, arguments.data)
    report = evaluate(line, arguments.n)
    line.close()
    for topic, hits in sorted(report.topics.items()):
        print(f"{topic:28} {np.mean(hits):6.3f} of {len(hits)}", file=sys.stderr)
    for example in report.wrong[: arguments.wrong]:
        print(example, file=sys.stderr)
    scores = report.summary(arguments.n)
    print(
        json.dumps(scores)
        if arguments.json
        else "\n".join(f"{name:8} {value}" for name, value in scores.items())
    )


if __name__ == "__main__":
    main()
