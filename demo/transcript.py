"""What the demo prints: colours on a terminal, plain lines elsewhere (NO_COLOR is respected)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from holdfast import Usage

_INDENT = " " * 4


class Cost:
    """What a step took: its time as the client saw it, and facts added while it ran."""

    def __init__(self) -> None:
        self.facts: list[str] = []

    def add(self, usage: Usage | None, *facts: str) -> None:
        """Facts in words, and the costs the server reports."""
        self.facts += [*facts, *(describe(usage) if usage else ())]


class Transcript:
    """Numbered steps, each with what it cost."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._steps = 0

    def title(self, text: str) -> None:
        self._console.print(Text(text, "bold"))

    def chapter(self, text: str) -> None:
        """What the next steps are about."""
        self._console.print()
        self._console.print(Text(text, "italic"))

    @contextmanager
    def step(self, text: str) -> Iterator[Cost]:
        """Announces a step, times it, and prints its cost when it is done."""
        self._steps += 1
        self._console.print()
        self._console.print(Text.assemble((f"{self._steps:2}  ", "bold cyan"), (text, "bold")))
        cost, started = Cost(), time.perf_counter()
        yield cost
        milliseconds = (time.perf_counter() - started) * 1000
        self._console.print(Text(_INDENT + " · ".join([f"{milliseconds:,.0f} ms", *cost.facts]), "dim"))

    def quote(self, who: str, text: str) -> None:
        """What somebody said; characters that would move the cursor are dots."""
        shown = "".join(c if c.isprintable() else "·" for c in text)
        self._console.print(Text.assemble(_INDENT, (f"{who}: ", "green"), shown))

    def verdict(self, text: str, good: bool) -> None:
        """The last line."""
        self._console.print()
        self._console.print(Text(text, "bold green" if good else "bold red"))


def describe(usage: Usage) -> list[str]:
    """The costs that are not zero, in words."""
    costs = (
        (usage.prefilled_tokens, f"{usage.prefilled_tokens:,} tokens prefilled"),
        (usage.restored_tokens, f"{usage.restored_tokens:,} tokens restored"),
        (usage.generated_tokens, f"{usage.generated_tokens:,} tokens generated"),
        (usage.media_encoded, f"{usage.media_encoded} picture encoded"),
        (usage.raw_bytes, f"{size(usage.raw_bytes)} of KV state"),
        (usage.stored_bytes, f"{size(usage.stored_bytes)} in the store"),
    )
    return [words for value, words in costs if value]


def size(count: int) -> str:
    """Bytes for people."""
    for unit, scale in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count} bytes"
