"""One run of one bench: its settings, its folder, its clock, and systems taken in turn."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.holdfast import Holdfast
from bench.llama_server import LlamaServer
from bench.places import CACHE
from bench.result import Result
from models import bench as models


@dataclass
class Run:
    """What a bench is given. It starts servers here, which are ended afterwards."""

    result: Result
    quick: bool
    folder: Path
    stack: ExitStack
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)

    def holdfast(self, name: str, *, cells: int, slots: int = 4, more: tuple[str, ...] = ()) -> Holdfast:
        """Starts a Holdfast server in a folder of that name."""
        folder = self.folder / name
        server = Holdfast(self.model(), folder, cells=cells, threads=self.threads, slots=slots, more=more)
        self.stack.callback(server.close)
        return server

    def llama_server(self, name: str, *, cells: int, more: tuple[str, ...] = ()) -> LlamaServer:
        """Starts a llama-server in a folder of that name."""
        server = LlamaServer(self.model(), self.folder / name, cells=cells, threads=self.threads, more=more)
        self.stack.callback(server.close)
        return server

    def model(self) -> models.BenchModel:
        """The model for state work, written when it is not there."""
        return models.make("kv-heavy", CACHE / "models")

    def alternate(self, systems: Mapping[str, Callable[[int], Mapping[str, float]]]) -> None:
        """Measures the systems in turn, A B A B, and keeps their samples as "SYSTEM.FIGURE".

        A system is called with the number of the round and tells what it measured.
        """
        for number in range(self.result.rounds):
            for name, measure in systems.items():
                for figure, value in measure(number).items():
                    self.result.samples.setdefault(f"{name}.{figure}", []).append(value)

    def usage(self, name: str, server: Holdfast | LlamaServer) -> None:
        """Keeps what a server has used until now."""
        self.result.figures[f"{name}.cpu_seconds"] = server.process.cpu_seconds()
        self.result.figures[f"{name}.peak_bytes"] = server.process.peak_bytes()

    def say(self, text: str) -> None:
        """Tells the one who waits what happens, on standard error."""
        sys.stderr.write(f"bench: {self.result.bench}: {text}\n")


@contextmanager
def prepared(result: Result) -> Iterator[Run]:
    """A run with a fresh folder, which is removed; the result knows how long the whole took."""
    started = time.monotonic()
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    try:
        with ExitStack() as stack:
            yield Run(result, result.quick, folder, stack)
    finally:
        shutil.rmtree(folder)
        result.seconds = time.monotonic() - started
