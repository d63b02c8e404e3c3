"""Codecs on real KV: how much smaller, and how fast, page by page.

"default" is what the store does: LZ4, kept where it gains, otherwise raw, with
all checksums. "raw" is the same container without a codec; the goal allows 5 %
of noise. Random weights give noise in the low bits and little to gain. The
embedded model is not measured yet.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import lz4.block
import numpy as np

from bench import cells, holdfast, text
from bench.result import at_most
from bench.run import Run
from bench.statistics import median, ratio
from holdfast_server.store import pages as store_pages

_CELLS = 4096
_TOKENS, _TOKENS_QUICK = 2048, 256
_KEY = bytes(32)
Codec = tuple[Callable[[bytes], bytes], Callable[[bytes, int], Any]]


def run(run: Run) -> None:
    """Checkpoints a session, and packs and unpacks its pages with every codec."""
    server = run.holdfast("holdfast", cells=_CELLS)
    session = server.session()
    session.append(text.words(_TOKENS_QUICK if run.quick else _TOKENS, seed=1))
    holdfast.complete(session, 1)
    session.checkpoint("kept")
    server.close()
    contents = asyncio.run(cells.pages(server.data, "kept"))
    for name, (pack, unpack) in _codecs().items():
        _measure(run, name, contents, pack, unpack)
    _containers(run, contents)
    run.result.figures |= {name: median(found).value for name, found in run.result.samples.items()}
    run.result.notes.append(
        "Sizes are shares of the raw bytes; speeds are raw gigabytes a second on one core."
    )


def _codecs() -> dict[str, Codec]:
    """What can be tried here: zstd only where `zstandard` is installed."""
    found: dict[str, Codec] = {
        "lz4": (
            lambda data: bytes(lz4.block.compress(data, store_size=False)),
            lambda data, size: lz4.block.decompress(data, uncompressed_size=size),
        )
    }
    if importlib.util.find_spec("zstandard"):
        zstd = importlib.import_module("zstandard")
        pack, unpack = zstd.ZstdCompressor(level=1).compress, zstd.ZstdDecompressor().decompress
        found["shuffle+zstd"] = (
            lambda data: bytes(pack(_shuffle(data))),
            lambda data, _: _unshuffle(unpack(data)),
        )
    return found


def _shuffle(data: bytes) -> bytes:
    """All low bytes, then all high bytes, of 16-bit numbers."""
    return np.frombuffer(data, np.uint8).reshape(-1, 2).T.tobytes()


def _unshuffle(data: bytes) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(2, -1).T.tobytes()


def _measure(
    run: Run,
    name: str,
    contents: list[bytes],
    pack: Callable[[bytes], bytes],
    unpack: Callable[[bytes, int], Any],
) -> None:
    raw = sum(len(content) for content in contents)
    for _ in range(run.result.rounds):
        started = time.perf_counter()
        packed = [pack(content) for content in contents]
        middle = time.perf_counter()
        restored = [unpack(data, len(content)) for data, content in zip(packed, contents, strict=True)]
        ended = time.perf_counter()
        if [bytes(data) for data in restored] != contents:
            raise RuntimeError(f"{name} lost data")
        samples = run.result.samples
        samples.setdefault(f"{name}.pack_gb_per_s", []).append(raw / (middle - started) / 1e9)
        samples.setdefault(f"{name}.unpack_gb_per_s", []).append(raw / (ended - middle) / 1e9)
        samples.setdefault(f"{name}.size", []).append(sum(map(len, packed)) / raw)


def _containers(run: Run, contents: list[bytes]) -> None:
    """The store's own pages, as they are written by default and without a codec, in turn."""
    encoded = {"default": [store_pages.encode(content, _KEY) for content in contents]}
    encoded["raw"] = [_raw(content) for content in contents]
    raw = sum(len(content) for content in contents)
    run.result.figures["default.size"] = sum(len(page.data) for page in encoded["default"]) / raw

    def measure(name: str) -> Callable[[int], dict[str, float]]:
        def unpack(_: int) -> dict[str, float]:
            started = time.perf_counter()
            for page in encoded[name]:
                store_pages.decode(page.data, page.ref, max_raw_bytes=page.ref.raw_bytes)
            return {"seconds": time.perf_counter() - started}

        return unpack

    run.alternate({name: measure(name) for name in encoded})
    samples = run.result.samples
    slower = ratio(samples["default.seconds"], samples["raw.seconds"])
    run.result.goals["default_over_raw_on_restore"] = at_most(slower, 1.05)


def _raw(content: bytes) -> store_pages.EncodedPage:
    """A page's container with the raw codec, whatever LZ4 would gain."""
    worthwhile, store_pages.WORTHWHILE = store_pages.WORTHWHILE, -1.0
    try:
        return store_pages.encode(content, _KEY)
    finally:
        store_pages.WORTHWHILE = worthwhile
