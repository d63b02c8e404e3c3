"""Turns sampled tokens' bytes into whole characters, and finds stop strings on the way."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Text of one generation. Holds back incomplete characters and beginnings of stop strings."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.matched = ""
        """The stop string that was found; text after it is dropped."""

    def push(self, data: bytes) -> str:
        """Text that is certain now."""
        self._held += self._decoder.decode(data)
        return self._release(self._safe_length())

    def finish(self) -> str:
        """What was held back; an incomplete character becomes U+FFFD."""
        self._held += self._decoder.decode(b"", final=True)
        self._safe_length()
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _safe_length(self) -> int:
        """How much of the held text cannot belong to a stop string; cuts at one that is complete."""
        found = [(at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            at, self.matched = min(found)
            self._held = self._held[:at]
            return at
        overlap = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        return len(self._held) - overlap


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
