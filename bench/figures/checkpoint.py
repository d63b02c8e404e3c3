"""Saving a growing conversation: after each further 64 tokens, against llama-server's slot save.

Timed: Holdfast's Checkpoint call, which answers once everything is synced, and
the peer's save request, which syncs nothing. Bytes are those the kernel counts
for the process, database and metadata included.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench import holdfast, text
from bench.figures.sizes import CELLS, NAMED, sizes
from bench.holdfast import Holdfast
from bench.llama_server import LlamaServer
from bench.result import at_least, at_most
from bench.run import Run
from bench.statistics import median, ratio
from holdfast import Session

_TURN = 64


def run(run: Run) -> None:
    """Measures at every size; the goals are those at 8k, and that the time does not grow."""
    ours = run.holdfast("holdfast", cells=CELLS)
    theirs = run.llama_server("llama-server", cells=CELLS, more=("-np", "1"))
    for cells in sizes(run.quick):
        run.say(f"{cells} cells")
        prompt = text.words(cells, seed=cells)
        session = ours.session()
        session.append(prompt)
        holdfast.complete(session, 1)
        session.checkpoint()
        said = prompt + theirs.complete(prompt, 1).text
        theirs.slot("save", "warm")
        label = NAMED[cells]
        run.alternate({f"holdfast.{label}": _ours(ours, session), f"peer.{label}": _theirs(theirs, said)})
        session.delete()
    run.usage("holdfast", ours)
    run.usage("peer", theirs)
    _judge(run)


def _ours(server: Holdfast, session: Session) -> Callable[[int], dict[str, float]]:
    def measure(_: int) -> dict[str, float]:
        holdfast.complete(session, _TURN)
        before, started = server.process.written_bytes(), time.perf_counter()
        session.checkpoint()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "bytes": server.process.written_bytes() - before}

    return measure


def _theirs(server: LlamaServer, said: str) -> Callable[[int], dict[str, float]]:
    conversation = [said]

    def measure(_: int) -> dict[str, float]:
        conversation[0] += server.complete(conversation[0], _TURN).text
        before, started = server.process.written_bytes(), time.perf_counter()
        server.slot("save", "slot")
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "bytes": server.process.written_bytes() - before}

    return measure


def _judge(run: Run) -> None:
    samples, result = run.result.samples, run.result
    for label in (NAMED[cells] for cells in sizes(run.quick)):
        for system in ("holdfast", "peer"):
            for figure in ("seconds", "bytes"):
                name = f"{system}.{label}.{figure}"
                result.figures[name] = median(samples[name]).value
    times = ratio(samples["peer.8k.seconds"], samples["holdfast.8k.seconds"])
    result.goals["times_faster_8k"] = at_least(times, 20)
    saved = ratio(samples["peer.8k.bytes"], samples["holdfast.8k.bytes"])
    result.goals["times_fewer_bytes_8k"] = at_least(saved, 60)
    last = NAMED[sizes(run.quick)[-1]]
    growth = ratio(samples[f"holdfast.{last}.seconds"], samples["holdfast.1k.seconds"])
    result.goals[f"time_{last}_over_1k"] = at_most(growth, 1.25)
    result.notes.append(
        "Holdfast's checkpoint is synced to disk when it is acknowledged; the slot file is not."
    )
