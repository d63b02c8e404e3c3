"""A session that leaves and comes back a thousand times against one that never left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import (
    Ended,
    Feed,
    GenerationSpec,
    KvPage,
    KvState,
    Piece,
    SamplerSpec,
    Span,
    TokenSpan,
)
from holdfast_server.engine.llama_engine import EngineSpec, LlamaEngine
from holdfast_server.llama.specs import ContextSpec
from holdfast_server.store import pages
from models import tiny
from tests.calls import png

CYCLES = 1000
GREEDY = SamplerSpec(0.0, 1.0, 0, 0.0, 1.0, 0.0, 0.0, 0)
KEY = bytes(32)


@pytest.fixture
async def engine(models_dir: Path) -> AsyncIterator[LlamaEngine]:
    made = tiny.make("llama", models_dir)
    context = ContextSpec(cells=4096, sequences=3, batch=256, threads=1, threads_batch=1, offload_kv=False)
    spec = EngineSpec(made.model, "a" * 64, made.projector, "b" * 64, 0, 10**6, context)
    engine = await asyncio.to_thread(LlamaEngine, spec, asyncio.get_running_loop())
    yield engine
    await engine.stop()


async def generate(engine: LlamaEngine, key: str, count: int) -> tuple[int, ...]:
    """Greedy tokens."""
    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def sink(event: Piece | Ended | BaseException) -> None:
        if isinstance(event, Ended):
            ended.set_result(event)

    await engine.generate(key, GenerationSpec(GREEDY, count), sink)
    return (await ended).tokens


def through_the_codec(state: KvState) -> KvState:
    """The state as it comes out of page files."""
    kept = []
    for page in state.pages:
        encoded = pages.encode(page.content.data, KEY)
        content = pages.decode(encoded.data, encoded.ref, max_raw_bytes=page.content.nbytes)
        kept.append(KvPage(np.frombuffer(content, np.uint8), page.cells))
    return KvState(kept, state.logits, 0.0)


async def test_a_thousand_evictions_change_no_byte_and_no_token(engine: LlamaEngine) -> None:
    picture = png(3)
    words = await engine.tokenize("what holds fast? " * 20, parse_special=False)
    spans: list[Span] = [
        words,
        *await engine.lay_out(picture, "d"),
        await engine.tokenize("?!", parse_special=False),
    ]
    feeds = [Feed(span, picture) for span in spans]
    for key in ("twin", "traveller"):
        await engine.open(key)
        await engine.feed(key, feeds)
        await engine.settle(key)
    first = await engine.read("traveller", spans, 0)
    state = through_the_codec(first)
    held = cells_of.after(spans, cells_of.count_cells(cells_of.decoded(spans)))
    for _ in range(CYCLES):
        await engine.close("traveller")
        await engine.open("traveller")
        await engine.load("traveller", cells_of.decoded(spans), state)
        await engine.feed("traveller", [Feed(span) for span in held])
        state = await engine.read("traveller", spans, 0)
    await engine.take_work("twin")
    assert (await engine.take_work("traveller")).prefilled_tokens == 0
    last = through_the_codec(state)
    assert len(first.pages) == len(last.pages)
    assert all(np.array_equal(a.content, b.content) for a, b in zip(first.pages, last.pages, strict=True))
    assert isinstance(held[0], TokenSpan)
    assert await generate(engine, "twin", 24) == await generate(engine, "traveller", 24)
