"""kill -9, start, first token: 4k tokens of text and two pictures, all of it saved before.

Timed from the start of the new process to the first token: loading the model,
opening the store, restoring. Both systems restore from their files, which the
page cache still holds. Dense memory only: hybrid models are not served yet.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from bench import holdfast, text
from bench.holdfast import Holdfast
from bench.llama_server import LlamaServer
from bench.result import at_most, exactly
from bench.run import Run
from bench.statistics import median, ratio

_CELLS = 8192
_TOKENS = 4096
_ID = "kept"


def run(run: Run) -> None:
    """Kills and restarts both systems in turn."""
    run.say(f"{_TOKENS} tokens and 2 pictures")
    pictures = [_picture(seed) for seed in range(2)]
    parts = [text.words(_TOKENS // 2, seed) for seed in range(2)]
    ours = run.holdfast("holdfast", cells=_CELLS)
    session = ours.session(_ID)
    session.append(parts[0], pictures[0], parts[1], pictures[1], "so, ")
    holdfast.complete(session, 1)
    session.checkpoint()
    theirs = run.llama_server("llama-server", cells=_CELLS, more=("-np", "1"))
    prompt = f"{parts[0]}<__media__>{parts[1]}<__media__>so, "
    theirs.complete(prompt, 1, pictures=pictures)
    theirs.slot("save", _ID)
    run.alternate({"holdfast": _ours(ours), "peer": _theirs(theirs, prompt, pictures)})
    run.usage("holdfast", ours)
    run.usage("peer", theirs)
    _judge(run)


def _ours(server: Holdfast) -> Callable[[int], dict[str, float]]:
    def measure(_: int) -> dict[str, float]:
        server.process.kill()
        started = time.perf_counter()
        server.restart()
        serving = time.perf_counter() - started
        session = server.client.session(_ID)
        opened = time.perf_counter() - started
        done = holdfast.complete(session, 1)
        session.checkpoint()  # the token is part of the conversation: the next round has it saved too
        whole = opened + done.first_token_seconds
        return {"serving": serving, "first_token": whole, "computed": done.prompt_tokens}

    return measure


def _theirs(server: LlamaServer, prompt: str, pictures: list[bytes]) -> Callable[[int], dict[str, float]]:
    def measure(_: int) -> dict[str, float]:
        server.process.kill()
        started = time.perf_counter()
        server.restart()
        serving = time.perf_counter() - started
        server.slot("restore", _ID)
        restored = time.perf_counter() - started
        done = server.complete(prompt, 1, pictures=pictures)
        whole = restored + done.first_token_seconds
        return {"serving": serving, "first_token": whole, "computed": done.prompt_tokens}

    return measure


def _picture(seed: int) -> bytes:
    """A PNG of coloured noise, 336 x 336."""
    pixels = np.random.default_rng(seed).integers(0, 256, (336, 336, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _judge(run: Run) -> None:
    samples, result = run.result.samples, run.result
    result.figures |= {name: median(found).value for name, found in samples.items()}
    whole = ratio(samples["holdfast.first_token"], samples["peer.first_token"])
    result.goals["dense_first_token"] = at_most(whole, 1.0)
    result.goals["dense_tokens_recomputed"] = exactly(sum(samples["holdfast.computed"]), 0)
    result.notes.append("Hybrid models are not served yet: their goal (<= 0.1) is not measured.")
