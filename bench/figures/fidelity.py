"""Evicted and restored after every token, against a twin that never was.

The server has one slot: a second session takes it after every checkpoint, so
that the first one comes back from its pages for every token it generates. The
twin generates the same tokens on a server of its own. In the end both are
checkpointed, and their cells are read out of the stores and compared.
"""

from __future__ import annotations

import asyncio

import numpy as np

from bench import cells, text
from bench.holdfast import Holdfast
from bench.result import exactly
from bench.run import Run
from holdfast import Residency
from models.bench import kv_heavy

_CELLS = 4096
_FIRST = 512
_LAST = "last"


def run(run: Run) -> None:
    """1,000 cycles; 100 in a quick run."""
    run.result.rounds = 1
    cycles = 100 if run.quick else 1000
    ours = run.holdfast("evicted", cells=_CELLS, slots=1)
    twin = run.holdfast("twin", cells=_CELLS, slots=1)
    tokens, computed, evictions = _evicted(run, ours, cycles)
    expected = _twin(twin, cycles)
    for server in (ours, twin):
        server.close()
    same = _same_cells(ours, twin)
    run.result.figures |= {"cycles": cycles, "evictions": evictions, "cells": _FIRST + cycles}
    run.result.goals |= {
        "evictions": exactly(evictions, cycles),
        "different_tokens": exactly(sum(a != b for a, b in zip(tokens, expected, strict=True)), 0),
        "tokens_prefilled": exactly(computed, 0),
        "cells_byte_identical": exactly(int(same), 1),
    }


def _evicted(run: Run, server: Holdfast, cycles: int) -> tuple[list[int], int, int]:
    """The tokens, prompt tokens computed for them after the first, and how often it was evicted."""
    session, other = server.session(), server.session()
    session.append(text.words(_FIRST, seed=1))
    tokens = list(session.complete(max_tokens=1).token_ids)
    other.append("who else is here? ")
    computed = evictions = 0
    for cycle in range(cycles):
        before = session.checkpoint()
        other.complete(max_tokens=1)
        evictions += session.refresh().residency is Residency.COLD
        done = session.complete(max_tokens=1)
        tokens += done.token_ids
        computed += done.finish.usage.prefilled_tokens
        server.client.delete_checkpoint(before)
        if cycle % 100 == 0:
            run.say(f"cycle {cycle} of {cycles}")
        if cycle % 500 == 499:
            other.delete()
            other = server.session()
            other.append("who else is here? ")
    session.checkpoint(_LAST)
    return tokens, computed, evictions


def _twin(server: Holdfast, cycles: int) -> list[int]:
    session = server.session()
    session.append(text.words(_FIRST, seed=1))
    tokens = [token for _ in range(cycles + 1) for token in session.complete(max_tokens=1).token_ids]
    session.checkpoint(_LAST)
    return tokens


def _same_cells(one: Holdfast, other: Holdfast) -> bool:
    """Whether the last checkpoints of both hold the same cells, byte for byte."""
    ours, theirs = (
        asyncio.run(cells.read(server.data, _LAST, 2 * kv_heavy.SHAPE.layers)) for server in (one, other)
    )
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
