"""Prompts: seeded words of which every byte is one token of the bench models."""

from __future__ import annotations

import random

_LETTERS = "abcdefghijklmnopqrsuvwxyz"
"""Without "t": the vocabulary's only merge is a space and a "t"."""


def words(tokens: int, seed: int) -> str:
    """Text of exactly `tokens` tokens, the same for the same seed."""
    source = random.Random(seed)
    text = ""
    while len(text) < tokens:
        text += "".join(source.choices(_LETTERS, k=source.randint(2, 9))) + " "
    return text[:tokens]
