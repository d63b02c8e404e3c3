"""A llama.cpp context: decodes rows, and reads and writes the KV cells of sequences."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from holdfast_server.errors import StartupError
from holdfast_server.llama import library, state
from holdfast_server.llama.model import Model, Tokens
from holdfast_server.llama.specs import ContextSpec

Logits = NDArray[np.float32]


class ContextFull(Exception):
    """llama.cpp found no free cells for a batch; the cache is as it was."""


class DecodeFailed(Exception):
    """llama.cpp failed in the middle of a batch; the sequences in it cannot be trusted."""


class Batch:
    """Token rows for one decode. Reused for every step; buffers are numpy arrays llama.cpp reads in place."""

    def __init__(self, capacity: int, sequences: int) -> None:
        self.capacity = capacity
        self.size = 0
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        self._sequences = np.arange(sequences, dtype=np.int32)
        self._pointers = np.zeros(capacity, np.uintp)

    @property
    def room(self) -> int:
        """Rows that still fit."""
        return self.capacity - self.size

    def clear(self) -> None:
        """Empties the batch."""
        self.size = 0

    def add(self, sequence: int, position: int, tokens: Tokens, *, logits: bool) -> int:
        """Adds consecutive tokens of one sequence; with `logits`, the last row's are wanted.

        Returns the index of the last row. The caller has checked the token ids.
        """
        count = len(tokens)
        if not 0 < count <= self.room or not 0 <= sequence < len(self._sequences) or position < 0:
            raise ValueError("rows do not fit the batch")
        start, self.size = self.size, self.size + count
        rows = slice(start, self.size)
        self._tokens[rows] = tokens
        self._positions[rows] = np.arange(position, position + count, dtype=np.int32)
        self._pointers[rows] = self._sequences.ctypes.data + 4 * sequence
        self._wanted[rows] = 0
        self._wanted[self.size - 1] = logits
        return self.size - 1

    def struct(self, embeddings: NDArray[np.float32] | None = None) -> Any:
        """The `llama_batch` over these buffers, or over `embeddings` in place of the tokens."""
        batch = llama_cpp.llama_batch()
        batch.n_tokens = self.size
        if embeddings is None:
            batch.token = self._tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        else:
            batch.embd = embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        batch.pos = self._positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.n_seq_id = self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        pointers = ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))
        batch.seq_id = self._pointers.ctypes.data_as(pointers)
        batch.logits = self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return batch


class Context:
    """Owns a `llama_context` with one unified cache. Engine thread only."""

    def __init__(self, model: Model, spec: ContextSpec) -> None:
        """Makes the context; raises StartupError when llama.cpp cannot."""
        params = llama_cpp.llama_context_default_params()
        # One sequence more than there are slots: the scratch that ranges are read through.
        params.n_seq_max = spec.sequences + 1
        params.n_ctx = spec.cells
        params.n_batch = params.n_ubatch = spec.batch
        params.n_threads, params.n_threads_batch = spec.threads, spec.threads_batch
        params.kv_unified = True
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.offload_kqv = spec.offload_kv
        params.no_perf = True
        self._model = model
        self._handle: Any = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise StartupError(
                f"llama.cpp cannot make a context of {spec.cells} cells: {library.last_error()}"
            )
        self._memory: Any = llama_cpp.llama_get_memory(self._handle)
        self._scratch = spec.sequences
        self.sequences = spec.sequences
        self.cells = int(llama_cpp.llama_n_ctx(self._handle))
        self.batch = Batch(int(llama_cpp.llama_n_batch(self._handle)), spec.sequences)
        self._buffer: state.Bytes = np.zeros(0, np.uint8)
        self.layout = self._learn()

    def close(self) -> None:
        """Frees the context."""
        llama_cpp.llama_free(self._handle)
        self._handle = None

    def decode(self) -> None:
        """Decodes the token rows in `batch`. Raises ContextFull or DecodeFailed."""
        self._decode(self.batch.struct())

    def decode_embeddings(
        self, sequence: int, position: int, embeddings: NDArray[np.float32], *, causal: bool
    ) -> Logits:
        """Decodes a picture's embeddings, shape [cells, embedding size], at consecutive positions.

        Returns the last row's logits, shape [vocabulary], a copy. Raises ContextFull or DecodeFailed.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self._model.embedding_size:
            raise ValueError("the embeddings do not have the model's width")
        if not causal and len(embeddings) > self.batch.capacity:
            raise ValueError("a picture whose rows see each other must fit into one batch")
        llama_cpp.llama_set_causal_attn(self._handle, causal)
        try:
            for start in range(0, len(embeddings), self.batch.capacity):
                part = np.ascontiguousarray(embeddings[start : start + self.batch.capacity], np.float32)
                self.batch.clear()
                row = self.batch.add(sequence, position + start, np.zeros(len(part), np.int32), logits=True)
                self._decode(self.batch.struct(part))
            return self.logits(row).copy()
        finally:
            llama_cpp.llama_set_causal_attn(self._handle, True)
            self.batch.clear()

    def logits(self, row: int) -> Logits:
        """The logits of a row that wanted them, shape [vocabulary]; valid until the next decode."""
        pointer = llama_cpp.llama_get_logits_ith(self._handle, row)
        if not pointer:
            raise RuntimeError("no logits were computed for that row")
        return np.ctypeslib.as_array(pointer, shape=(self._model.vocab_size,))

    def end_position(self, sequence: int) -> int:
        """The position after the sequence's last; 0 when it is empty."""
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def remove(self, sequence: int, start: int = 0) -> None:
        """Frees the sequence's cells from position `start` on. Raises RuntimeError when they stay."""
        if not 0 <= sequence <= self._scratch or start < 0:
            raise ValueError("no such sequence or position")
        removed = llama_cpp.llama_memory_seq_rm(self._memory, sequence, start, -1)
        if not removed or self.end_position(sequence) > start:
            raise RuntimeError("llama.cpp did not free the cells")

    def share(self, source: int, sequence: int, stop: int) -> None:
        """Makes the source's cells at positions below `stop` the empty sequence's too; copies nothing."""
        slots = range(self._scratch)
        if source not in slots or sequence not in slots or self.end_position(sequence):
            raise ValueError("cells are shared between two slots, the second one empty")
        if not 0 < stop <= self.end_position(source):
            raise ValueError("the source does not reach that far")
        llama_cpp.llama_memory_seq_cp(self._memory, source, sequence, 0, stop)

    def read(self, sequence: int, positions: state.Positions) -> state.Rows:
        """The cells of a run of positions, shape [cells]; valid until the next read or write.

        Raises StateRefused when the sequence does not hold exactly these cells.
        """
        start, stop = int(positions[0]), int(positions[-1]) + 1
        if not 0 <= start < stop <= self.end_position(sequence):
            raise state.StateRefused("the sequence does not reach that far")
        llama_cpp.llama_memory_seq_cp(self._memory, sequence, self._scratch, start, stop)
        try:
            blob = self._get_state(self._scratch)
            return state.parse(blob, self.layout, positions)
        finally:
            self.remove(self._scratch)

    def write(self, sequence: int, pages: list[state.Rows], positions: state.Positions) -> None:
        """Fills an empty sequence with the cells of verified pages, which must hold `positions`.

        Raises StateRefused, and then the sequence is empty.
        """
        if self.end_position(sequence):
            raise ValueError("the sequence is not empty")
        blob = state.build(pages, self.layout, positions, self._room(self.layout.blob_bytes(len(positions))))
        try:
            self._set_state(sequence, blob)
            if self.end_position(sequence) != int(positions[-1]) + 1:
                raise state.StateRefused("the restored sequence ends elsewhere than it should")
        except state.StateRefused:
            self.remove(sequence)
            raise

    def _decode(self, batch: Any) -> None:
        result = llama_cpp.llama_decode(self._handle, batch)
        if result == 1:
            raise ContextFull
        if result != 0:
            raise DecodeFailed(f"llama_decode returned {result}: {library.last_error()}")

    def _room(self, size: int) -> state.Bytes:
        """A pooled buffer: writing into fresh memory costs more than the copy itself."""
        if size > len(self._buffer):
            self._buffer = np.zeros(size + size // 4, np.uint8)
        return self._buffer

    def _get_state(self, sequence: int) -> state.Bytes:
        size = int(llama_cpp.llama_state_seq_get_size_ext(self._handle, sequence, 0))
        room = self._room(size)
        pointer = room.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if llama_cpp.llama_state_seq_get_data_ext(self._handle, pointer, size, sequence, 0) != size:
            raise state.StateRefused("llama.cpp wrote less state than it announced")
        return room[:size]

    def _set_state(self, sequence: int, blob: state.Bytes) -> None:
        pointer = blob.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if llama_cpp.llama_state_seq_set_data_ext(self._handle, pointer, len(blob), sequence, 0) != len(blob):
            raise state.StateRefused("llama.cpp refused the state")

    def _learn(self) -> state.Layout:
        """Decodes one token to learn the layout, then proves that its state goes out and in unchanged.

        Raises StartupError when the state is not what this version of Holdfast was built for.
        """
        self.batch.add(0, 0, np.zeros(1, np.int32), logits=False)
        try:
            self._decode(self.batch.struct())
            before = self._get_state(0).copy()
            layout = state.learn_layout(before)
            rows = state.parse(before, layout, np.zeros(1, np.int32))
            self.remove(0)
            self.layout = layout
            self.write(0, [state.unpack_page(state.pack_page(rows, 0, 1), layout)], np.zeros(1, np.int32))
            if not np.array_equal(self._get_state(0), before):
                raise state.StateRefused("the state came back changed")
        except (state.StateRefused, ContextFull, DecodeFailed) as error:
            raise StartupError(f"the start-up check of llama.cpp's state failed: {error}") from error
        finally:
            self.remove(0)
            self.batch.clear()
        return layout
