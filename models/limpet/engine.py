"""A bare way to run Limpet's two files on llama.cpp: one sequence, greedy; for parity and evaluation.

Holdfast's server does this properly (many sessions, encoder thread, saved state); this does not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import mtmd_cpp
from PIL import Image

MARKER = "<__media__>"
DATA = Path(__file__).parents[2] / "server" / "holdfast_server" / "data"
"""Where the server package keeps the two shipped files."""
_QUIET = llama_cpp.llama_log_callback(lambda *_: None)


class Engine:
    """Owns a model, a context and an mtmd context; not thread-safe. `close` frees them."""

    def __init__(self, text: Path, eye: Path, context: int = 8192, threads: int = 1) -> None:
        llama_cpp.llama_log_set(_QUIET, ctypes.c_void_p())
        mtmd_cpp.mtmd_log_set(_QUIET, ctypes.c_void_p())
        mtmd_cpp.mtmd_helper_log_set(_QUIET, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        # Any: llama_cpp's handles are NewTypes over ctypes pointers that its own stubs do not agree on.
        self._model: Any = llama_cpp.llama_model_load_from_file(
            str(text).encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch = (
            context,
            512,
            threads,
            threads,
        )
        self._context: Any = llama_cpp.llama_init_from_model(self._model, params)
        options = mtmd_cpp.mtmd_context_params_default()
        options.use_gpu, options.n_threads, options.print_timings = False, threads, False
        self._eye: Any = mtmd_cpp.mtmd_init_from_file(str(eye).encode(), self._model, options)
        if not (self._model and self._context and self._eye):
            raise RuntimeError(f"llama.cpp could not load {text} and {eye}")
        self._vocabulary: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary_size = int(llama_cpp.llama_vocab_n_tokens(self._vocabulary))
        self.end = int(llama_cpp.llama_vocab_eos(self._vocabulary))
        self.position = 0

    def close(self) -> None:
        mtmd_cpp.mtmd_free(self._eye)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def template(self) -> str:
        """The chat template the model file carries (Jinja)."""
        return str(llama_cpp.llama_model_chat_template(self._model, None).decode())

    def reset(self) -> None:
        """Forget everything that was fed."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self.position = 0

    def tokens(self, text: str, special: bool = True, first: bool = False) -> list[int]:
        """Token ids of that text; control tokens are recognised if `special`, BOS is added if `first`."""
        raw = text.encode()
        room = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), room, len(room), first, special)
        return list(room[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of one token; none for a control token."""
        room = ctypes.create_string_buffer(64)
        count = llama_cpp.llama_token_to_piece(self._vocabulary, token, room, 64, 0, False)
        return room.raw[: max(count, 0)]

    def feed(self, text: str, pictures: Sequence[Image.Image] = ()) -> None:
        """Decode text with a MARKER for each picture, control tokens recognised; the first behind BOS."""
        bitmaps = [self._bitmap(picture) for picture in pictures]
        chunks: Any = mtmd_cpp.mtmd_input_chunks_init()
        raw = text.encode()
        given = mtmd_cpp.mtmd_input_text(raw, len(raw), self.position == 0, True)
        array = (mtmd_cpp.mtmd_bitmap_p_ctypes * max(len(bitmaps), 1))(*bitmaps)
        after = llama_cpp.llama_pos(0)
        failed = mtmd_cpp.mtmd_tokenize(self._eye, chunks, ctypes.byref(given), array, len(bitmaps))
        failed = failed or mtmd_cpp.mtmd_helper_eval_chunks(
            self._eye, self._context, chunks, self.position, 0, 512, True, ctypes.byref(after)
        )
        mtmd_cpp.mtmd_input_chunks_free(chunks)
        for bitmap in bitmaps:
            mtmd_cpp.mtmd_bitmap_free(bitmap)
        if failed:
            raise RuntimeError(f"llama.cpp could not decode the prompt (code {failed})")
        self.position = int(after.value)

    def feed_token(self, token: int) -> None:
        """Decode one token at the end."""
        one = (llama_cpp.llama_token * 1)(token)
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(one, 1)) != 0:
            raise RuntimeError("llama.cpp could not decode a token")
        self.position += 1

    def logits(self) -> npt.NDArray[np.float32]:
        """Of the last token fed: shape (vocabulary_size,)."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, (self.vocabulary_size,)).copy()

    def embedding(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        """What the eye and projector make of a picture: shape (64, width)."""
        bitmap = self._bitmap(picture)
        chunks: Any = mtmd_cpp.mtmd_input_chunks_init()
        given = mtmd_cpp.mtmd_input_text(MARKER.encode(), len(MARKER), False, True)
        mtmd_cpp.mtmd_tokenize(
            self._eye, chunks, ctypes.byref(given), (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap), 1
        )
        width = int(llama_cpp.llama_model_n_embd(self._model))
        found: npt.NDArray[np.float32] | None = None
        for index in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
            chunk: Any = mtmd_cpp.mtmd_input_chunks_get(chunks, index)
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                mtmd_cpp.mtmd_encode_chunk(self._eye, chunk)
                count = int(mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk))
                pointer: Any = mtmd_cpp.mtmd_get_output_embd(self._eye)
                found = np.ctypeslib.as_array(pointer, (count * width,)).reshape(count, width).copy()
        mtmd_cpp.mtmd_input_chunks_free(chunks)
        mtmd_cpp.mtmd_bitmap_free(bitmap)
        if found is None:
            raise RuntimeError("mtmd made no picture of the marker")
        return found

    @staticmethod
    def _bitmap(picture: Image.Image) -> Any:
        pixels = picture.convert("RGB").tobytes()
        buffer = (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels)
        return mtmd_cpp.mtmd_bitmap_init(picture.width, picture.height, buffer)
