"""Bringing a saved conversation back: Holdfast's Restore against llama-server's slot restore.

Timed twice: the call alone, and from the call to the first token. "memory": the
files are in the page cache. "disk": they were taken out of it before. Holdfast
verifies every page's checksum and every cell's position; the peer verifies nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench import files, holdfast, text
from bench.figures.sizes import CELLS, NAMED, sizes
from bench.holdfast import Holdfast
from bench.llama_server import LlamaServer
from bench.result import at_most, exactly
from bench.run import Run
from bench.statistics import median, ratio
from holdfast import RestoreMode

Measure = Callable[[int], dict[str, float]]
_SOURCES = ("memory", "disk")
_BOUNDS = {"memory": 1.0, "disk": 1.2}


def run(run: Run) -> None:
    """Measures at every size, from memory and from disk; the goals are those at 8k."""
    ours = run.holdfast("holdfast", cells=CELLS)
    theirs = run.llama_server("llama-server", cells=CELLS, more=("-np", "1"))
    for cells in sizes(run.quick):
        run.say(f"{cells} cells")
        label, prompt = NAMED[cells], text.words(cells, seed=cells)
        _save(ours, theirs, prompt, label)
        for source in _SOURCES:
            run.alternate(
                {
                    f"holdfast.{label}.{source}": _ours(ours, label, source),
                    f"peer.{label}.{source}": _theirs(theirs, label, source, prompt),
                }
            )
        ours.client.delete_checkpoint(label)
        (theirs.slots / label).unlink()
    run.usage("holdfast", ours)
    run.usage("peer", theirs)
    _judge(run)


def _save(ours: Holdfast, theirs: LlamaServer, prompt: str, label: str) -> None:
    """The same conversation saved on both sides, after its prompt and one generated token."""
    session = ours.session()
    session.append(prompt)
    holdfast.complete(session, 1)
    session.checkpoint(label)
    session.delete()
    theirs.complete(prompt, 1)
    theirs.slot("save", label)


def _ours(server: Holdfast, label: str, source: str) -> Measure:
    def measure(_: int) -> dict[str, float]:
        _place(server, source)
        started = time.perf_counter()
        restored = server.client.restore(label)
        called = time.perf_counter() - started
        done = holdfast.complete(restored.session, 1)
        restored.session.delete()
        if restored.mode is not RestoreMode.RESTORED:
            raise RuntimeError(f"the session was rebuilt: {restored.rebuild_reason}")
        return {
            "call": called,
            "first_token": called + done.first_token_seconds,
            "computed": done.prompt_tokens,
        }

    return measure


def _theirs(server: LlamaServer, label: str, source: str, prompt: str) -> Measure:
    def measure(_: int) -> dict[str, float]:
        server.slot("erase")
        _place(server, source)
        started = time.perf_counter()
        server.slot("restore", label)
        called = time.perf_counter() - started
        done = server.complete(prompt, 1)
        return {
            "call": called,
            "first_token": called + done.first_token_seconds,
            "computed": done.prompt_tokens,
        }

    return measure


def _place(server: Holdfast | LlamaServer, source: str) -> None:
    folder = server.data / "blobs" if isinstance(server, Holdfast) else server.slots
    files.read_all(folder)
    if source == "disk":
        files.evict(folder)


def _judge(run: Run) -> None:
    samples, result = run.result.samples, run.result
    result.figures |= {name: median(found).value for name, found in samples.items()}
    for source in _SOURCES:
        for figure in ("call", "first_token"):
            mine, peers = (samples[f"{system}.8k.{source}.{figure}"] for system in ("holdfast", "peer"))
            result.goals[f"{source}_8k_{figure}"] = at_most(ratio(mine, peers), _BOUNDS[source])
    computed = sum(
        sum(s) for name, s in samples.items() if name.startswith("holdfast") and "computed" in name
    )
    result.goals["tokens_recomputed"] = exactly(computed, 0)
    result.notes.append(
        "A first token costs both one decode beyond the restore; `computed` counts prompt tokens."
    )
