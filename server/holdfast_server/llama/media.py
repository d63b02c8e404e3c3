"""A projector file: turns pictures into embeddings the model reads (llama.cpp's mtmd)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import mtmd_cpp
from numpy.typing import NDArray

from holdfast_server.errors import StartupError
from holdfast_server.llama import library
from holdfast_server.llama.model import Model, Tokens, check_gguf

Pixels = NDArray[np.uint8]
"""A picture, RGB, shape [height, width, 3]."""


@dataclass(frozen=True, slots=True)
class Text:
    """A part to tokenize: text, and whether control tokens in it are read as such."""

    text: str
    parse_special: bool


@dataclass(frozen=True, slots=True)
class Tile:
    """One run of embeddings that a picture becomes; most projectors make one tile a picture."""

    index: int
    """Which of the picture's media chunks this is."""
    cells: int
    """KV cells, one an embedding row."""
    positions: int
    """llama.cpp positions it takes; fewer than `cells` under M-RoPE."""


class MediaRefused(Exception):
    """mtmd could not turn the picture into chunks."""


class Projector:
    """Owns an `mtmd_context`. `layout` is safe on any thread; `encode` on one at a time."""

    def __init__(self, path: Path, model: Model, *, use_gpu: bool, threads: int) -> None:
        """Loads the file; raises StartupError when it is missing, broken or made for another model."""
        library.start()
        check_gguf(path, "projector")
        self.path = path
        self._model = model
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = use_gpu
        params.print_timings = False
        params.n_threads = threads
        params.warmup = False
        self._handle: Any = mtmd_cpp.mtmd_init_from_file(str(path).encode(), model.handle, params)
        if not self._handle:
            raise StartupError(f"the projector {path} does not fit the model: {library.last_error()}")
        if not mtmd_cpp.mtmd_support_vision(self._handle):
            self.close()
            raise StartupError(f"the projector {path} takes no pictures")

    def close(self) -> None:
        """Frees the projector."""
        mtmd_cpp.mtmd_free(self._handle)
        self._handle = None

    def layout(self, picture: Pixels) -> list[Tokens | Tile]:
        """What `picture` becomes: tiles, and the tokens that the projector puts around them.

        Raises MediaRefused.
        """
        with self._chunks(picture) as chunks:
            return [self._describe(chunk, index) for index, chunk in enumerate(chunks)]

    def encode(self, picture: Pixels, tile: Tile) -> NDArray[np.float32]:
        """The tile's embeddings, shape [cells, embedding size]. Slow; one thread at a time.

        Raises MediaRefused.
        """
        with self._chunks(picture) as chunks:
            if tile.index >= len(chunks) or self._describe(chunks[tile.index], tile.index) != tile:
                raise MediaRefused("the picture does not have the tile it had when it was appended")
            if mtmd_cpp.mtmd_encode_chunk(self._handle, chunks[tile.index]) != 0:
                raise MediaRefused("the projector could not encode the picture")
            shape = (tile.cells, self._model.embedding_size)
            output = mtmd_cpp.mtmd_get_output_embd(self._handle)
            return np.ctypeslib.as_array(output, shape=shape).copy()

    @property
    def causal(self) -> bool:
        """Whether embeddings are decoded under the ordinary causal mask."""
        return not mtmd_cpp.mtmd_decode_use_non_causal(self._handle, None)

    def _describe(self, chunk: Any, index: int) -> Tokens | Tile:
        if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
            count = ctypes.c_size_t()
            tokens = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            return np.array(tokens[: count.value], np.int32)
        return Tile(
            index=index,
            cells=int(mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)),
            positions=int(mtmd_cpp.mtmd_input_chunk_get_n_pos(chunk)),
        )

    @contextmanager
    def _chunks(self, picture: Pixels) -> Iterator[list[Any]]:
        """mtmd's chunks for one picture; they live as long as the context."""
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise ValueError("a picture is an array of uint8, shape [height, width, 3]")
        data = np.ascontiguousarray(picture)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd_cpp.mtmd_bitmap_init(data.shape[1], data.shape[0], pointer)
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        try:
            part = mtmd_cpp.mtmd_input_part(text=None, bitmap=bitmap)
            parts = (ctypes.POINTER(mtmd_cpp.mtmd_input_part) * 1)(ctypes.pointer(part))
            if mtmd_cpp.mtmd_tokenize_from_parts(self._handle, chunks, parts, 1, False) != 0:
                raise MediaRefused("the projector cannot take this picture")
            size = mtmd_cpp.mtmd_input_chunks_size(chunks)
            yield [mtmd_cpp.mtmd_input_chunks_get(chunks, i) for i in range(size)]
        finally:
            mtmd_cpp.mtmd_input_chunks_free(chunks)
            mtmd_cpp.mtmd_bitmap_free(bitmap)
