"""A model file: weights, vocabulary, metadata. Read-only once loaded, usable from any thread."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from holdfast_server.errors import StartupError
from holdfast_server.llama import library

Tokens = NDArray[np.int32]
_GGUF = b"GGUF"


def check_gguf(path: Path, what: str) -> None:
    """Raises StartupError unless `path` is a readable file that begins as a GGUF does."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise StartupError(f"cannot read the {what} {path}: {error.strerror}") from error
    if magic != _GGUF:
        raise StartupError(f"the {what} {path} is not a GGUF file")


class Model:
    """Owns a `llama_model`. Every method is a read and safe on any thread."""

    def __init__(self, path: Path, *, gpu_layers: int) -> None:
        """Loads the file; raises StartupError when it is missing, broken or unknown."""
        library.start()
        check_gguf(path, "model")
        self.path = path
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        self.handle: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise StartupError(f"llama.cpp cannot load the model {path}: {library.last_error()}")
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self.handle)
        self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(self.vocab))
        self.embedding_size = int(llama_cpp.llama_model_n_embd_inp(self.handle))

    def close(self) -> None:
        """Frees the weights. Nothing made from the model may be used afterwards."""
        llama_cpp.llama_model_free(self.handle)
        self.handle = None

    def metadata(self, key: str) -> str | None:
        """One metadata value as text, None where the file has none."""
        buffer = ctypes.create_string_buffer(4096)
        size = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if size >= 0 else None

    @functools.cached_property
    def name(self) -> str:
        """The name in the metadata, or the file's."""
        return self.metadata("general.name") or self.path.stem

    @functools.cached_property
    def description(self) -> str:
        """llama.cpp's one-line description."""
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return int(llama_cpp.llama_model_n_params(self.handle))

    @property
    def trained_context(self) -> int:
        """Tokens of context the model was trained for."""
        return int(llama_cpp.llama_model_n_ctx_train(self.handle))

    @functools.cached_property
    def chat_template(self) -> str | None:
        """The Jinja source of the model's chat template."""
        source = llama_cpp.llama_model_chat_template(self.handle, None)
        return source.decode("utf-8", "replace") if source else None

    @functools.cached_property
    def memory_kind(self) -> str:
        """plain, mrope, sliding-window, recurrent or hybrid."""
        if llama_cpp.llama_model_is_hybrid(self.handle):
            return "hybrid"
        if llama_cpp.llama_model_is_recurrent(self.handle):
            return "recurrent"
        if llama_cpp.llama_model_n_swa(self.handle) > 0:
            return "sliding-window"
        rope = llama_cpp.llama_model_rope_type(self.handle)
        many = (llama_cpp.LLAMA_ROPE_TYPE_MROPE, llama_cpp.LLAMA_ROPE_TYPE_IMROPE)
        return "mrope" if rope in many else "plain"

    def begin_tokens(self) -> Tokens:
        """What every session starts with: the BOS token where the model wants one."""
        if not llama_cpp.llama_vocab_get_add_bos(self.vocab):
            return np.empty(0, np.int32)
        return np.array([llama_cpp.llama_vocab_bos(self.vocab)], np.int32)

    def special_text(self, which: str) -> str:
        """The text of the "bos" or "eos" token, empty where there is none."""
        token = getattr(llama_cpp, f"llama_vocab_{which}")(self.vocab)
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def tokenize(self, text: str, *, parse_special: bool) -> Tokens:
        """Token ids of `text`, shape [n]. With `parse_special` off, control tokens are plain text."""
        data = text.encode()
        room = len(data) + 16
        while True:
            tokens = np.empty(room, np.int32)
            pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = llama_cpp.llama_tokenize(self.vocab, data, len(data), pointer, room, False, parse_special)
            if count >= 0:
                return tokens[:count].copy()
            room = -count

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for; control tokens are empty unless `special`."""
        self.check_tokens(np.array([token]))
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, room, 0, special)
            if size >= 0:
                return buffer.raw[:size]
            room = -size

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    def check_tokens(self, tokens: Tokens) -> None:
        """Raises ValueError for a token id outside the vocabulary: llama.cpp would read past a table."""
        if len(tokens) and (int(tokens.min()) < 0 or int(tokens.max()) >= self.vocab_size):
            raise ValueError(f"token ids must be from 0 to {self.vocab_size - 1}")

    @functools.cached_property
    def vocabulary_bytes(self) -> bytes:
        """Everything that gives token ids their meaning: the text and kind of each token."""
        parts = []
        for token in range(self.vocab_size):
            parts.append(llama_cpp.llama_vocab_get_text(self.vocab, token) or b"")
            parts.append(b"\0%d\0" % llama_cpp.llama_vocab_get_attr(self.vocab, token))
        return b"".join(parts)
