"""Real server processes for tests that kill them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from holdfast.v1 import session_service_pb2_grpc
from models.tiny import TinyModel

HOLDFAST = Path(sys.executable).parent / "holdfast"


def command(model: TinyModel, data_dir: Path, *more: str, port: int = 0) -> list[str]:
    """The command line of a small server."""
    projector = ["--mmproj", str(model.projector)] if model.projector else []
    small = ["-c", "2048", "-np", "4", "-t", "1", "--port", str(port), "--data-dir", str(data_dir)]
    return [str(HOLDFAST), "serve", "-m", str(model.model), *projector, *small, *more]


class ServerProcess:
    """One running server."""

    def __init__(self, arguments: list[str], folder: Path | None = None) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
        self.process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "serving on" not in line:
            raise AssertionError(f"the server did not start: {self.finish()}")
        self.address = line.split()[-1]

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self.process.send_signal(signal.SIGKILL)
        self.finish()

    def terminate(self) -> None:
        """SIGTERM: an orderly end."""
        self.process.send_signal(signal.SIGTERM)

    def finish(self) -> tuple[int, str]:
        """Waits for the end: exit status and everything on stderr."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        """A stub that calls it."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            yield session_service_pb2_grpc.SessionServiceStub(channel)


@asynccontextmanager
async def running(model: TinyModel, data_dir: Path, *more: str) -> AsyncIterator[ServerProcess]:
    """A server process that is dead afterwards, whatever happens."""
    server = ServerProcess(command(model, data_dir, *more))
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()
