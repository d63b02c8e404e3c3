"""Fixtures: tiny models, and real servers in this process on port 0."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from holdfast.v1 import session_service_pb2_grpc
from holdfast_server.app import Server
from holdfast_server.config import Settings
from holdfast_server.sessions.limits import Limits
from models import tiny

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this run's tiny models are."""
    return tmp_path_factory.mktemp("models")


@dataclass
class RunningServer:
    """A server in this process, and a stub to call it."""

    server: Server
    address: str
    stub: Any
    data_dir: Path


StartServer = Callable[..., Awaitable[RunningServer]]


@pytest.fixture
async def start_server(models_dir: Path, tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts servers: model name, data directory and settings may differ; all are drained afterwards."""
    async with AsyncExitStack() as stack:

        async def start(
            model: str = "llama",
            *,
            data_dir: Path | None = None,
            projector: bool = True,
            limits: Limits | None = None,
            **settings: Any,
        ) -> RunningServer:
            made = tiny.make(model, models_dir)
            folder = data_dir or tmp_path / "data"
            # Saving by itself is tested by those who ask for it; elsewhere costs should be plain to see.
            defaults: dict[str, Any] = {
                "ctx_size": 2048,
                "parallel": 4,
                "threads": 1,
                "port": 0,
                "autosave": "off",
            }
            server = Server(
                Settings(
                    model=made.model,
                    mmproj=made.projector if projector else None,
                    data_dir=folder,
                    **(defaults | settings),
                ),
                limits,
            )
            await server.start()
            stack.push_async_callback(server.drain, 0)
            address = f"127.0.0.1:{server.port}"
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", 2**28)])
            )
            stub = session_service_pb2_grpc.SessionServiceStub(channel)
            return RunningServer(server, address, stub, folder)

        yield start


@pytest.fixture
async def server(start_server: StartServer) -> RunningServer:
    """A server of the tiny llama with its projector."""
    return await start_server()
