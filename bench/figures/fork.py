"""Eight branches of a 4k trunk: ForkSession in the middle of a live conversation.

Timed: the ForkSession calls, and from each call to the branch's first token
after 16 tokens of its own. The peer has no fork: its branches are completions
of the whole prompt in another slot.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench import files, holdfast, text
from bench.holdfast import Holdfast
from bench.llama_server import LlamaServer
from bench.result import at_most, exactly
from bench.run import Run
from bench.statistics import median
from holdfast import Session

_CELLS = 8192
_TOKENS = 4096
_BRANCHES = 8


def run(run: Run) -> None:
    """Forks a session, once a round, into branches that then go on."""
    trunk = text.words(_TOKENS, seed=1)
    ours = run.holdfast("holdfast", cells=_CELLS, slots=_BRANCHES + 1)
    session = ours.session()
    session.append(trunk)
    holdfast.complete(session, 1)
    session.checkpoint()
    theirs = run.llama_server("llama-server", cells=_CELLS, more=("-np", "2", "-kvu"))
    theirs.complete(trunk, 1)
    run.alternate({"holdfast": _ours(ours, session), "peer": _theirs(theirs, trunk)})
    run.usage("holdfast", ours)
    run.usage("peer", theirs)
    _judge(run)


def _ours(server: Holdfast, session: Session) -> Callable[[int], dict[str, float]]:
    def measure(number: int) -> dict[str, float]:
        blobs = files.disk_bytes(server.data / "blobs")
        started = time.perf_counter()
        branches = [session.fork() for _ in range(_BRANCHES)]
        forked = time.perf_counter() - started
        written = files.disk_bytes(server.data / "blobs") - blobs
        firsts, computed = [], 0
        for place, branch in enumerate(branches):
            started = time.perf_counter()
            branch.append(text.words(16, seed=100 * number + place + 1))
            appended = time.perf_counter() - started
            done = holdfast.complete(branch, 1)
            firsts.append(appended + done.first_token_seconds)
            # The branch's own 16 tokens, and the trunk's token that was held back, are its own to compute.
            computed += max(0, done.prompt_tokens - 16)
        for branch in branches:
            branch.delete()
        return {
            "fork": forked / _BRANCHES,
            "first_token": forked / _BRANCHES + median(firsts).value,
            "page_bytes": written / _BRANCHES,
            "trunk_tokens_computed": computed,
        }

    return measure


def _theirs(server: LlamaServer, trunk: str) -> Callable[[int], dict[str, float]]:
    def measure(number: int) -> dict[str, float]:
        prompt = trunk + text.words(16, seed=100 * number + 1)
        done = server.complete(prompt, 1, slot=1)
        server.slot("erase", slot=1)
        computed = max(0, done.prompt_tokens - 16)
        return {"first_token": done.first_token_seconds, "trunk_tokens_computed": _BRANCHES * computed}

    return measure


def _judge(run: Run) -> None:
    samples, result = run.result.samples, run.result
    result.figures |= {name: median(found).value for name, found in samples.items()}
    result.goals["trunk_tokens_prefilled"] = exactly(sum(samples["holdfast.trunk_tokens_computed"]), 0)
    milliseconds = median([1000 * seconds for seconds in samples["holdfast.fork"]])
    result.goals["milliseconds_a_branch"] = at_most(milliseconds, 5)
    result.goals["page_bytes_a_branch"] = exactly(sum(samples["holdfast.page_bytes"]), 0)
    result.notes.append(
        "llama-server computes one branch a round, counted eight times, in a slot that is erased afterwards: "
        "it must not find the branch of the round before."
    )
