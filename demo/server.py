"""A server in a process of its own, started, killed and started again on the same data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

_READY = "holdfast: serving on "


class ServerFailedError(Exception):
    """The server ended before it served; the message ends with what it said last."""


class ServerProcess:
    """`holdfast serve` on a free port. Leaving the `with` block kills it, whatever happened."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        holdfast = Path(sys.executable).with_name("holdfast")
        self._command = [str(holdfast), "serve", "--port", "0", *arguments]
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def start(self) -> int:
        """Returns the process id once the server says where it listens. Raises ServerFailedError."""
        with self._log.open("a") as log:
            process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True)
        self._process = process
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_READY):
                self.address = line.removeprefix(_READY).strip()
                return process.pid
        raise ServerFailedError(f"the server ended with status {process.wait()}: {self._last_words()}")

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
