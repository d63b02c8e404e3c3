"""Limpet's tokenizer: byte-level BPE, split the way llama.cpp's "qwen2" pre-tokenizer splits.

Any UTF-8 text has tokens: the 256 bytes come first, then merges learned on the training sentences,
then the control tokens. Digits are always tokens of their own. Only training uses this class;
llama.cpp reads the same vocabulary and merges from the GGUF.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import regex  # type: ignore[import-untyped]  # its stubs are a package of their own

START, END, BEGIN, IMAGE_START, IMAGE_END, PAD = (
    "<|im_start|>", "<|im_end|>", "<|begin|>", "<image>", "</image>", "<|pad|>",
)  # fmt: skip
CONTROLS = (START, END, BEGIN, IMAGE_START, IMAGE_END, PAD)
PRE_TOKENIZER = "qwen2"
_SPLIT = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a GPT-2 style vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters, spare = [], 256
    for byte in range(256):
        if byte in plain:
            letters.append(chr(byte))
        else:
            letters.append(chr(spare))
            spare += 1
    return letters


class Tokenizer:
    """Text to token ids and back, given the merges in order."""

    def __init__(self, merges: list[tuple[str, str]], size: int = 1024) -> None:
        plain = [*byte_letters(), *(left + right for left, right in merges)]
        if len(plain) + len(CONTROLS) > size:
            raise ValueError(f"{len(merges)} merges do not fit a vocabulary of {size}")
        unused = [f"<|unused{i}|>" for i in range(size - len(plain) - len(CONTROLS))]
        self.tokens = [*plain, *unused, *CONTROLS]
        self.merges = merges
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._letters = byte_letters()
        self._bytes = {letter: byte for byte, letter in enumerate(self._letters)}
        self._word = functools.lru_cache(maxsize=65536)(self._split_word)

    def control(self, token: str) -> int:
        return self._ids[token]

    def encode(self, text: str) -> list[int]:
        """Plain text only: control tokens in it are spelled out, never recognised."""
        return [number for word in _SPLIT.findall(text) for number in self._word(word)]

    def decode(self, numbers: Iterable[int]) -> str:
        letters = "".join(token for token in (self.tokens[n] for n in numbers) if token not in CONTROLS)
        return bytes(self._bytes[letter] for letter in letters).decode("utf-8", "replace")

    def _split_word(self, word: str) -> tuple[int, ...]:
        parts = [self._letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            rank, at = min(
                (self._ranks.get((parts[i], parts[i + 1]), len(self._ranks)), i)
                for i in range(len(parts) - 1)
            )
            if rank == len(self._ranks):
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self._ids[part] for part in parts)

    def save(self, path: Path) -> None:
        path.write_text(
            json.dumps({"size": len(self.tokens), "merges": [" ".join(p) for p in self.merges]}, indent=0)
        )

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        saved = json.loads(path.read_text())
        return cls(
            [(left, right) for left, right in (line.split(" ") for line in saved["merges"])], saved["size"]
        )

    @classmethod
    def learn(cls, texts: Iterable[str], size: int = 1024) -> Tokenizer:
        """Merge the most frequent neighbours, again and again, until the vocabulary is full."""
        letters = byte_letters()
        counts = Counter(word for text in texts for word in _SPLIT.findall(text))
        words = {word: [letters[byte] for byte in word.encode()] for word in counts}
        merges: list[tuple[str, str]] = []
        while len(merges) < size - 256 - len(CONTROLS):
            pairs: Counter[tuple[str, str]] = Counter()
            for word, parts in words.items():
                for pair in itertools.pairwise(parts):
                    pairs[pair] += counts[word]
            if not pairs:
                break
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            merges.append(best)
            for parts in words.values():
                _merge(parts, best)
        return cls(merges, size)


def _merge(parts: list[str], pair: tuple[str, str]) -> None:
    at = 0
    while at < len(parts) - 1:
        if (parts[at], parts[at + 1]) == pair:
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        at += 1
