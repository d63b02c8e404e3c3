"""Durable appends: time to acknowledgement with 1, 8 and 64 writers, each to a session of its own.

Beside each round, how long writing and syncing 4 KiB takes on the same disk.
The peer keeps no journal: there is nothing of its to compare with.
"""

from __future__ import annotations

import asyncio
import time

from bench import files, text
from bench.holdfast import Holdfast
from bench.result import at_least, at_most
from bench.run import Run
from bench.statistics import median, percentile, ratio
from holdfast import AsyncClient, AsyncSession

_CELLS = 8192
_WRITERS = (1, 8, 64)
_TOKENS = 16


def run(run: Run) -> None:
    """Appends with each number of writers, in turn; nothing else runs on the server."""
    ours = run.holdfast("holdfast", cells=_CELLS)
    each = 40 if run.quick else 150
    asyncio.run(_rounds(run, ours, each))
    run.usage("holdfast", ours)
    _judge(run)


async def _rounds(run: Run, server: Holdfast, each: int) -> None:
    samples = run.result.samples
    async with AsyncClient(server.address) as client:
        for number in range(run.result.rounds):
            for writers in _WRITERS:
                samples.setdefault("fsync", []).extend(files.fsync_seconds(run.folder, each))
                times = each if writers < 64 else each // 8
                found, seconds = await _write(client, writers, times, number)
                samples.setdefault(f"{writers}.seconds", []).extend(found)
                samples.setdefault(f"{writers}.a_second", []).append(len(found) / seconds)


async def _write(client: AsyncClient, writers: int, each: int, number: int) -> tuple[list[float], float]:
    """Seconds of every append, and of all of them together."""
    create = (client.create_session(chat_format="raw") for _ in range(writers))
    sessions = await asyncio.gather(*create)
    said = text.words(_TOKENS, seed=number)
    started = time.perf_counter()
    found = await asyncio.gather(*(_append(session, said, each) for session in sessions))
    seconds = time.perf_counter() - started
    for session in sessions:
        await session.delete()
    return [sample for samples in found for sample in samples], seconds


async def _append(session: AsyncSession, said: str, times: int) -> list[float]:
    found = []
    for _ in range(times):
        started = time.perf_counter()
        await session.append(said)
        found.append(time.perf_counter() - started)
    return found


def _judge(run: Run) -> None:
    samples, result = run.result.samples, run.result
    fsync = samples.pop("fsync")
    result.figures |= {
        "fsync.p50_seconds": percentile(fsync, 0.5),
        "fsync.p99_seconds": percentile(fsync, 0.99),
    }
    for writers in _WRITERS:
        found = samples.pop(f"{writers}.seconds")
        result.figures[f"{writers}.p50_seconds"] = percentile(found, 0.5)
        result.figures[f"{writers}.p99_seconds"] = percentile(found, 0.99)
        result.figures[f"{writers}.a_second"] = median(samples[f"{writers}.a_second"]).value
    slowest, sync = result.figures["1.p99_seconds"], result.figures["fsync.p50_seconds"]
    result.goals["p99_over_one_fsync"] = at_most(slowest / sync, 3)
    result.figures["p99_over_p99_of_fsync"] = slowest / result.figures["fsync.p99_seconds"]
    group = ratio(samples["64.a_second"], samples["1.a_second"])
    result.goals["throughput_64_over_1"] = at_least(group, 10)
    result.notes.append(
        "One fsync is the median of the probe; the goal takes one writer's 99th percentile over it."
    )
