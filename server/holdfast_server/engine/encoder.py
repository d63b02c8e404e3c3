"""The encoder thread: pictures become embeddings beside the engine, not on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from holdfast_server.engine import pictures
from holdfast_server.engine.api import MediaSpan
from holdfast_server.llama.media import Projector, Tile

Encoded = tuple[NDArray[np.float32], float]
"""Embeddings, shape [cells, embedding size], and the seconds they took."""


class Encoder:
    """One thread, one picture at a time; jobs wait in order."""

    def __init__(self, projector: Projector, *, max_pixels: int) -> None:
        self._projector = projector
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="holdfast-encoder")

    def submit(
        self, span: MediaSpan, picture: bytes, done: Callable[[Future[Encoded]], None]
    ) -> Future[Encoded]:
        """Encodes one run of a picture's embeddings; `done` is called on the encoder's thread."""
        future = self._pool.submit(self._encode, span, picture)
        future.add_done_callback(done)
        return future

    def close(self) -> None:
        """Drops what waits, and waits for what runs."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _encode(self, span: MediaSpan, picture: bytes) -> Encoded:
        started = time.monotonic()
        pixels = pictures.decode(picture, max_pixels=self._max_pixels)
        tile = Tile(index=span.index, cells=span.cells, positions=span.positions)
        embeddings = self._projector.encode(pixels, tile)
        return embeddings, time.monotonic() - started
