"""The server's life: bind, load, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from contextlib import AsyncExitStack

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from holdfast.v1 import session_service_pb2, session_service_pb2_grpc
from holdfast_server import embedded, files, logs
from holdfast_server.config import Settings
from holdfast_server.engine.llama_engine import EngineSpec, LlamaEngine
from holdfast_server.errors import StartupError
from holdfast_server.llama.specs import ContextSpec
from holdfast_server.rpc.interceptor import Gate, Phase
from holdfast_server.rpc.service import SessionService
from holdfast_server.sessions.janitor import Janitor
from holdfast_server.sessions.limits import Limits
from holdfast_server.sessions.manager import Sessions
from holdfast_server.store.store import Store

SERVICE = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_WATCH_SECONDS = 0.5

_logger = logging.getLogger("holdfast")


class Server:
    """One server on one event loop. `start`, then `drain`; or `run` for both with signals between."""

    def __init__(self, settings: Settings, limits: Limits | None = None) -> None:
        self._settings = settings
        self._limits = limits or Limits()
        self._gate = Gate()
        self._service = SessionService()
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._resources = AsyncExitStack()
        self.engine: LlamaEngine | None = None
        self.port = 0

    async def start(self) -> None:
        """Binds first, so that a port in use is known at once; serves when the model is loaded.

        Raises StartupError, and then nothing is left running.
        """
        try:
            await self._bind()
            await self._load()
        except BaseException:
            await self._resources.aclose()
            raise
        self._gate.phase = Phase.SERVING
        await self._set_health(_SERVING)

    @property
    def sessions(self) -> Sessions:
        """What the service works on, once it is loaded."""
        return self._service.sessions

    async def _bind(self) -> None:
        settings = self._settings
        self._server = grpc.aio.server(
            interceptors=[self._gate],
            options=[
                # Two servers on one port would each get half of the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", self._limits.message_bytes),
                ("grpc.max_send_message_length", self._limits.message_bytes),
            ],
        )
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(self._service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        await self._set_health(_NOT_SERVING)
        _check_address(settings.host, settings.port)
        self.port = self._server.add_insecure_port(f"{settings.host}:{settings.port}")
        await self._server.start()
        self._resources.push_async_callback(self._server.stop, 0)

    async def _load(self) -> None:
        settings = self._settings
        store = await Store.open(settings.data_dir, max_bytes=settings.store_bytes)
        self._resources.push_async_callback(store.close)
        model, projector = settings.model_files
        spec = EngineSpec(
            model=model,
            model_digest=await files.digest(model, store.catalog),
            projector=projector,
            projector_digest=await files.digest(projector, store.catalog) if projector else "",
            gpu_layers=settings.gpu_layers,
            max_pixels=self._limits.media_pixels,
            context=ContextSpec(
                cells=settings.ctx_size,
                sequences=settings.parallel,
                batch=settings.batch_size,
                threads=settings.compute_threads,
                threads_batch=settings.compute_threads,
                offload_kv=settings.gpu_layers != 0,
            ),
        )
        self.engine = await asyncio.to_thread(LlamaEngine, spec, asyncio.get_running_loop())
        self._resources.push_async_callback(self.engine.stop)
        sessions = Sessions(
            self.engine,
            store,
            self._limits,
            autosave=settings.autosave,
            autosave_keep=settings.autosave_keep,
        )
        self._resources.push_async_callback(sessions.close)
        self._service.serve(sessions, strict_restore=settings.strict_restore)
        janitor = asyncio.create_task(Janitor(sessions).run())
        self._resources.push_async_callback(_end, janitor)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def drain(self, grace: float) -> None:
        """Refuses new calls, gives running ones `grace` seconds, then closes everything in order."""
        self._gate.phase = Phase.DRAINING
        await self._set_health(_NOT_SERVING)
        await self._gate.idle(grace)
        await self._server.stop(0)  # ends the streams that are left; their generations journal and stop
        await self._resources.aclose()

    async def wait(self, stopped: asyncio.Event) -> bool:
        """Waits for `stopped`; False when the engine failed first, and health says NOT_SERVING."""
        while self.engine is not None and not self.engine.failed:
            try:
                await asyncio.wait_for(stopped.wait(), _WATCH_SECONDS)
            except TimeoutError:
                continue
            return True
        await self._set_health(_NOT_SERVING)
        return False


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _check_address(host: str, port: int) -> None:
    """Binds once before gRPC does, which would log its own lines. Raises StartupError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host}:{port}: the port is in use, or the address is not this machine's"
        ) from error


async def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; the exit status. Raises StartupError."""
    logs.configure(settings.log_level)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = Server(settings)
    await server.start()
    print(f"holdfast: serving on {settings.host}:{server.port}", flush=True)  # noqa: T201
    if settings.model is None:
        print(embedded.NOTICE, flush=True)  # noqa: T201
    healthy = await server.wait(stopped)
    _logger.info("draining", extra={"grace_seconds": settings.grace})
    await server.drain(settings.grace if healthy else 0)
    return 0 if healthy else 1
