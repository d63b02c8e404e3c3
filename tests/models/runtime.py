"""llama.cpp as these tests need it: one sequence, greedy, no server code."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import mtmd_cpp

Logits = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

CELLS = 1024
BATCH = 512


class _Handle(AbstractContextManager[Any]):
    """Something to free."""

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError


class Runtime(_Handle):
    """A loaded model with one empty context."""

    def __init__(self, path: Path) -> None:
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(bytes(path), llama_cpp.llama_model_default_params())
        assert self.model, "llama.cpp refuses the file"
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.context = llama_cpp.llama_init_from_model(self.model, _context_params())
        assert self.context
        self.position = 0

    def close(self) -> None:
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def forget(self) -> None:
        """Empty the context."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.position = 0

    def tokenize(self, text: bytes, *, parse_special: bool = True) -> list[int]:
        tokens = (llama_cpp.llama_token * (len(text) + 2))()
        count = llama_cpp.llama_tokenize(
            self.vocab, text, len(text), tokens, len(tokens), True, parse_special
        )
        assert count >= 0
        return list(tokens[:count])

    def detokenize(self, tokens: list[int]) -> bytes:
        return b"".join(self._piece(token) for token in tokens)

    def decode(self, tokens: list[int]) -> Logits:
        """Append tokens; returns the last one's logits, (vocabulary,)."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))  # positions follow the memory's own
        assert llama_cpp.llama_decode(self.context, batch) == 0
        return self.logits()

    def generate(self, logits: Logits, count: int) -> list[int]:
        """The greedy continuation, control tokens included."""
        tokens: list[int] = []
        while len(tokens) < count:
            tokens.append(int(logits.argmax()))
            logits = self.decode(tokens[-1:])
        return tokens

    def logits(self) -> Logits:
        size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, -1), (size,)).copy()

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, 64, 0, True)
        return buffer.raw[:length]


class Eyes(_Handle):
    """A projector on a runtime."""

    def __init__(self, runtime: Runtime, projector: Path) -> None:
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu, params.warmup, params.print_timings, params.n_threads = False, False, False, 1
        self.runtime = runtime
        self.context = mtmd_cpp.mtmd_init_from_file(bytes(projector), runtime.model, params)
        assert self.context, "mtmd refuses the projector"

    def close(self) -> None:
        mtmd_cpp.mtmd_free(self.context)

    def see(self, picture: Picture) -> Logits:
        """Logits after a text, the picture (height, width, 3) and a text, in an empty context."""
        self.runtime.forget()
        with _Chunks(self.context, picture) as chunks:
            reached = llama_cpp.llama_pos(0)
            status = mtmd_cpp.mtmd_helper_eval_chunks(
                self.context, self.runtime.context, chunks.handle, 0, 0, BATCH, True, ctypes.byref(reached)
            )
            assert status == 0
        return self.runtime.logits()

    def embed(self, picture: Picture) -> npt.NDArray[np.float32]:
        """The picture's embeddings, (tokens, width)."""
        with _Chunks(self.context, picture) as chunks:
            chunk = chunks.picture()
            assert mtmd_cpp.mtmd_encode_chunk(self.context, chunk) == 0
            shape = (
                mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk),
                llama_cpp.llama_model_n_embd_inp(self.runtime.model),
            )
            return np.ctypeslib.as_array(mtmd_cpp.mtmd_get_output_embd(self.context), shape).copy()

    def positions(self, picture: Picture) -> int:
        """How many positions the picture takes."""
        with _Chunks(self.context, picture) as chunks:
            return int(mtmd_cpp.mtmd_input_chunk_get_n_pos(chunks.picture()))


class _Chunks(_Handle):
    """A text, a picture and a text, tokenized."""

    def __init__(self, context: Any, picture: Picture) -> None:
        height, width = picture.shape[:2]
        pixels = np.ascontiguousarray(picture).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd_cpp.mtmd_bitmap_init(width, height, pixels)
        texts = [
            mtmd_cpp.mtmd_input_text(text, len(text), False, False) for text in (b"look: ", b" what is it?")
        ]
        parts = [mtmd_cpp.mtmd_input_part(text=ctypes.pointer(text)) for text in texts]
        parts.insert(1, mtmd_cpp.mtmd_input_part(bitmap=bitmap))
        pointers = (ctypes.POINTER(mtmd_cpp.mtmd_input_part) * 3)(*map(ctypes.pointer, parts))
        self.handle = mtmd_cpp.mtmd_input_chunks_init()
        status = mtmd_cpp.mtmd_tokenize_from_parts(context, self.handle, pointers, 3, False)
        mtmd_cpp.mtmd_bitmap_free(bitmap)
        assert status == 0

    def close(self) -> None:
        mtmd_cpp.mtmd_input_chunks_free(self.handle)

    def picture(self) -> Any:
        """The one chunk that is a picture."""
        count = mtmd_cpp.mtmd_input_chunks_size(self.handle)
        chunks = [mtmd_cpp.mtmd_input_chunks_get(self.handle, index) for index in range(count)]
        image = mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_IMAGE
        [chunk] = [chunk for chunk in chunks if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == image]
        return chunk


def _context_params() -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = CELLS, BATCH, BATCH
    params.n_threads = params.n_threads_batch = 1
    return params
