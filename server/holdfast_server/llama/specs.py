"""What callers ask of llama.cpp, as plain values; importing this loads no library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SamplerSpec:
    """How to choose the next token; bounds are the caller's. Temperature 0 is greedy."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    """Of this generation's random stream, 32 bits."""


@dataclass(frozen=True, slots=True)
class ContextSpec:
    """How to set a context up, in llama.cpp's own terms."""

    cells: int
    sequences: int
    batch: int
    """Rows of one `llama_decode` at most."""
    threads: int
    threads_batch: int
    offload_kv: bool
