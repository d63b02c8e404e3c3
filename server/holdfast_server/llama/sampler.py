"""Chooses the next token: one chain of llama.cpp's samplers for one generation."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from holdfast_server.llama.model import Model, Tokens
from holdfast_server.llama.specs import SamplerSpec

PENALTY_WINDOW = 64
"""Tokens that the penalties look back on, as in llama-server."""

_CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


class Sampler:
    """Owns a `llama_sampler` chain. Engine thread only."""

    def __init__(self, model: Model, spec: SamplerSpec, recent: Tokens) -> None:
        """Makes the chain; `recent` are the session's last tokens, shape [n], for the penalties."""
        model.check_tokens(recent)
        self._size = model.vocab_size
        self._handle: Any = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for link in _links(spec, self._size):
            llama_cpp.llama_sampler_chain_add(self._handle, link)
        for token in recent[-PENALTY_WINDOW:]:
            llama_cpp.llama_sampler_accept(self._handle, int(token))

    def close(self) -> None:
        """Frees the chain."""
        llama_cpp.llama_sampler_free(self._handle)
        self._handle = None

    def sample(self, logits: NDArray[np.float32]) -> int:
        """The next token after a row of logits, shape [vocabulary]; remembers it for the penalties."""
        candidates = np.empty(self._size, _CANDIDATE)
        candidates["id"] = np.arange(self._size, dtype=np.int32)
        candidates["logit"] = logits
        candidates["p"] = 0.0
        data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
        array = llama_cpp.llama_token_data_array(data=data, size=self._size, selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(self._handle, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            raise RuntimeError("the sampler chain selected no token")
        token = int(array.data[array.selected].id)
        llama_cpp.llama_sampler_accept(self._handle, token)
        return token


def _links(spec: SamplerSpec, vocab_size: int) -> list[Any]:
    """The chain's samplers in llama-server's order."""
    penalties = llama_cpp.llama_sampler_init_penalties(
        vocab_size, PENALTY_WINDOW, spec.repeat_penalty, spec.frequency_penalty, spec.presence_penalty
    )
    if spec.temperature == 0:
        return [penalties, llama_cpp.llama_sampler_init_greedy()]
    return [
        penalties,
        llama_cpp.llama_sampler_init_top_k(spec.top_k),
        llama_cpp.llama_sampler_init_top_p(spec.top_p, 1),
        llama_cpp.llama_sampler_init_min_p(spec.min_p, 1),
        llama_cpp.llama_sampler_init_temp(spec.temperature),
        llama_cpp.llama_sampler_init_dist(spec.seed),
    ]
