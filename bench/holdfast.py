"""Holdfast as its users have it: a `holdfast serve` process, through the Python client."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.process import Process
from holdfast import Client, Session
from models.bench import BenchModel

_COMMAND = Path(sys.executable).parent / "holdfast"


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished generation."""

    first_token_seconds: float
    text: str
    prompt_tokens: int
    """Prompt tokens computed for it."""


class Holdfast:
    """One server with its own data directory, and a client of it.

    Automatic checkpoints are off unless `more` says otherwise: what is measured is what was called.
    """

    name = "holdfast"

    def __init__(
        self,
        model: BenchModel,
        folder: Path,
        *,
        cells: int,
        threads: int,
        slots: int = 4,
        more: Sequence[str] = (),
    ):
        self.data = folder / "data"
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        files = ["-m", str(model.model), "--mmproj", str(model.projector), "--data-dir", str(self.data)]
        sizes = ["-c", str(cells), "-t", str(threads), "-np", str(slots), "--port", "0"]
        modes = ["--autosave", "off", "--log-level", "warning"]
        self._arguments = [str(_COMMAND), "serve", *files, *sizes, *modes, *more]
        self.address = ""
        self.process: Process = self._start()
        self.client = Client(self.address)

    def _start(self) -> Process:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
        process = Process(self._arguments, self._folder / "log", environment)
        line = process.first_line()
        if "serving on" not in line:
            process.kill()
            raise RuntimeError(f"holdfast did not start; see {process.log}")
        self.address = line.split()[-1]
        return process

    def restart(self) -> None:
        """Starts it again after `process.kill()`; returns when it serves."""
        self.client.close()
        self.process = self._start()
        self.client = Client(self.address)

    def close(self) -> None:
        """Ends it."""
        self.client.close()
        self.process.stop()

    def session(self, session_id: str = "") -> Session:
        """A raw greedy session: what is appended is what the model sees."""
        return self.client.create_session(session_id, chat_format="raw", temperature=0)


def complete(session: Session, tokens: int) -> Completed:
    """Generates `tokens` tokens."""
    started = time.perf_counter()
    generation = session.generate(max_tokens=tokens)
    first = 0.0
    for piece in generation:
        if not first and piece.token_ids:
            first = time.perf_counter() - started
    if len(generation.token_ids) != tokens:
        raise RuntimeError(f"the model ended after {len(generation.token_ids)} of {tokens} tokens")
    return Completed(first, generation.text, generation.finish.usage.prefilled_tokens)
