"""Fixtures: a fake server on port 0, and clients of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from holdfast import AsyncClient, AsyncSession, Client
from holdfast.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from tests.client.fake import FakeHealth, FakeService

_T = TypeVar("_T")


@dataclass
class Fake:
    """A fake server that listens."""

    service: FakeService
    health: FakeHealth
    server: grpc.aio.Server
    address: str
    loop: asyncio.AbstractEventLoop

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Waits, at most 10 seconds, for a coroutine of the server's loop; for other threads."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def serving(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self.health.set("", status.SERVING if serving else status.NOT_SERVING)


async def start() -> Fake:
    """Binds a fake server to a free port."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)])
    service, servicer = FakeService(), FakeHealth()
    add_SessionServiceServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    fake = Fake(service, servicer, server, f"127.0.0.1:{port}", asyncio.get_running_loop())
    await fake.serving(True)
    return fake


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    """A fake server in the test's event loop."""
    running = await start()
    yield running
    await running.server.stop(None)


@pytest.fixture
async def client(fake: Fake) -> AsyncIterator[AsyncClient]:
    """A client of the fake server."""
    async with AsyncClient(fake.address, timeout=10) as client:
        yield client


@pytest.fixture
async def session(client: AsyncClient) -> AsyncSession:
    """A new session of the fake server."""
    return await client.create_session("alice")


@pytest.fixture
def fake_elsewhere() -> Iterator[Fake]:
    """A fake server on another thread, for tests of the synchronous face."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield running
    running.run(running.server.stop(None))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def sync_client(fake_elsewhere: Fake) -> Iterator[Client]:
    """A synchronous client of the fake server."""
    with Client(fake_elsewhere.address, timeout=10) as client:
        yield client
