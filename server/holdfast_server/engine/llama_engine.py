"""The real engine: llama.cpp on a thread of its own, an encoder thread beside it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from holdfast_server.engine import foreign, pictures
from holdfast_server.engine.api import (
    Engine,
    EngineInfo,
    Feed,
    GenerationSpec,
    KvState,
    MediaSpan,
    Sink,
    Span,
    TokenSpan,
    Work,
)
from holdfast_server.engine.core import Core
from holdfast_server.engine.encoder import Encoder
from holdfast_server.engine.identity import compatibility_key, token_key
from holdfast_server.errors import HoldfastError, Reason, StartupError
from holdfast_server.llama import library
from holdfast_server.llama.context import Context
from holdfast_server.llama.media import MediaRefused, Projector, Tile
from holdfast_server.llama.model import Model
from holdfast_server.llama.specs import ContextSpec

T = TypeVar("T")
_logger = logging.getLogger("holdfast.engine")


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What to load and how."""

    model: Path
    model_digest: str
    projector: Path | None
    projector_digest: str
    gpu_layers: int
    max_pixels: int
    context: ContextSpec


class LlamaEngine(Engine):
    """Owns the model, its context and their threads."""

    def __init__(self, spec: EngineSpec, loop: asyncio.AbstractEventLoop) -> None:
        """Loads everything and proves that state goes out and in unchanged. Slow; call off the loop.

        Raises StartupError.
        """
        self._loop = loop
        self._spec = spec
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outbox: list[tuple[Callable[[Any], None], Any]] = []
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="holdfast-tokenizer")
        self._failure: BaseException | None = None
        self._waiting: set[asyncio.Future[Any]] = set()
        self._model = Model(spec.model, gpu_layers=spec.gpu_layers)
        if self._model.memory_kind != "plain":
            raise StartupError(
                f"the model's memory is {self._model.memory_kind}, which this version of Holdfast cannot "
                "checkpoint yet; it serves models with a plain KV cache"
            )
        self._projector = self._load_projector()
        self._context = Context(self._model, spec.context)
        self._encoder = (
            Encoder(self._projector, max_pixels=spec.max_pixels) if self._projector is not None else None
        )
        self.info = self._describe()
        self._core = Core(
            self._model,
            self._context,
            self._encoder,
            causal=self._projector is None or self._projector.causal,
            post=self._commands.put,
            emit=lambda callback, value: self._outbox.append((callback, value)),
        )
        self._thread = threading.Thread(target=self._run, name="holdfast-engine", daemon=True)
        self._thread.start()

    def _load_projector(self) -> Projector | None:
        spec = self._spec
        if spec.projector is None:
            return None
        return Projector(
            spec.projector, self._model, use_gpu=spec.gpu_layers != 0, threads=spec.context.threads_batch
        )

    def _describe(self) -> EngineInfo:
        model, spec = self._model, self._spec
        return EngineInfo(
            model_name=model.name,
            model_description=model.description,
            parameter_count=model.parameter_count,
            trained_context=model.trained_context,
            memory_kind=model.memory_kind,
            vision=self._projector is not None,
            chat_template=model.chat_template,
            bos=model.special_text("bos"),
            eos=model.special_text("eos"),
            library_version=library.version(),
            slots=spec.context.sequences,
            cells=self._context.cells,
            cell_bytes=self._context.layout.page_bytes(1) - self._context.layout.page_bytes(0),
            compatibility_key=compatibility_key(
                spec.model_digest, spec.projector_digest, self._context.layout
            ),
            token_key=token_key(model, spec.projector_digest),
        )

    # The thread

    def _run(self) -> None:
        try:
            busy = False
            while self._take_commands(wait=not busy):
                busy = self._core.step()
                self._deliver()
        except BaseException as error:
            _logger.exception("the engine thread failed")
            self._failure = error
            self._core.abort(RuntimeError("the engine failed"))
        finally:
            self._deliver()
            self._loop.call_soon_threadsafe(self._release_waiting)

    def _take_commands(self, *, wait: bool) -> bool:
        """Runs what is queued; with `wait`, sleeps until there is something. False to stop."""
        try:
            command = self._commands.get(block=wait)
            while True:
                if command is None:
                    return False
                command()
                command = self._commands.get_nowait()
        except queue.Empty:
            return True

    def _deliver(self) -> None:
        """Hands all events of a step to the loop in one call."""
        events, self._outbox = self._outbox, []
        if events:
            self._loop.call_soon_threadsafe(_dispatch, events)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        """Runs `work` between two steps; a cancelled caller does not stop it."""
        future: asyncio.Future[T] = self._future()

        def command() -> None:
            try:
                self._outbox.append((_resolve(future), work()))
            # It belongs to whoever awaits.
            except Exception as error:  # noqa: BLE001
                self._outbox.append((_resolve(future), error))

        self._check_alive()
        self._commands.put(command)
        return await future

    def _future(self) -> asyncio.Future[Any]:
        """A future that ends with the engine at the latest. Event loop."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def _release_waiting(self) -> None:
        """The thread is gone: nobody will answer what still waits. Event loop."""
        for future in list(self._waiting):
            future.set_exception(RuntimeError("the engine has stopped"))

    def _check_alive(self) -> None:
        if self._failure is not None or not self._thread.is_alive():
            raise RuntimeError("the engine is not running")

    @property
    def failed(self) -> bool:
        """Whether the engine thread has died of an error."""
        return self._failure is not None

    # The seam

    async def tokenize(self, text: str, *, parse_special: bool) -> TokenSpan:
        return await self._loop.run_in_executor(
            self._pool, lambda: TokenSpan(self._model.tokenize(text, parse_special=parse_special))
        )

    def begin(self) -> TokenSpan:
        return TokenSpan(self._model.begin_tokens())

    async def lay_out(self, picture: bytes, digest: str) -> list[Span]:
        return await self._loop.run_in_executor(self._pool, self._lay_out, picture, digest)

    def _lay_out(self, picture: bytes, digest: str) -> list[Span]:
        if self._projector is None:
            raise HoldfastError(
                Reason.MODALITY_NOT_SUPPORTED, "the server has no projector, so it takes no pictures"
            )
        pixels = pictures.decode(picture, max_pixels=self._spec.max_pixels)
        try:
            parts = self._projector.layout(pixels)
        except MediaRefused as error:
            raise HoldfastError(
                Reason.UNSUPPORTED_MEDIA, "the model's projector cannot take this picture; try another size"
            ) from error
        return [
            MediaSpan(digest, part.index, part.cells, part.positions)
            if isinstance(part, Tile)
            else TokenSpan(part)
            for part in parts
        ]

    async def open(self, key: str) -> None:
        await self._on_thread(lambda: self._core.open(key))

    async def close(self, key: str) -> None:
        await self._on_thread(lambda: self._core.close(key))

    async def share(self, source: str, key: str, cells: int) -> int:
        return await self._on_thread(lambda: self._core.share(source, key, cells))

    async def feed(self, key: str, feeds: Sequence[Feed]) -> None:
        await self._on_thread(lambda: self._core.feed(key, feeds))

    async def settle(self, key: str) -> None:
        future: asyncio.Future[None] = self._future()
        await self._on_thread(lambda: self._core.settle(key, _resolve(future)))
        await future

    async def take_work(self, key: str) -> Work:
        return await self._on_thread(lambda: self._core.take_work(key))

    async def rewind(self, key: str, cells: int, position: int, held: int | None) -> None:
        await self._on_thread(lambda: self._core.rewind(key, cells, position, held))

    async def generate(self, key: str, spec: GenerationSpec, sink: Sink) -> None:
        await self._on_thread(lambda: self._core.generate(key, spec, sink))

    async def cancel(self, key: str) -> None:
        await self._on_thread(lambda: self._core.cancel(key))

    async def read(self, key: str, spans: Sequence[Span], first_cell: int) -> KvState:
        return await self._on_thread(lambda: self._core.read(key, spans, first_cell))

    async def load(self, key: str, spans: Sequence[Span], state: KvState) -> float:
        return await self._on_thread(lambda: self._core.load(key, spans, state))

    async def check(self, spans: Sequence[Span], state: KvState, first_cell: int = 0) -> None:
        layout, vocabulary = self._context.layout, self._model.vocab_size
        work = partial(foreign.check, spans, state, first_cell, layout=layout, vocabulary=vocabulary)
        await self._loop.run_in_executor(self._pool, work)

    async def stop(self) -> None:
        """Ends the threads and frees the model. Idempotent."""
        if self._model.handle is None:
            return
        self._commands.put(None)
        await self._loop.run_in_executor(None, self._release)

    def _release(self) -> None:
        self._thread.join()
        self._pool.shutdown(wait=True)
        if self._encoder is not None:
            self._encoder.close()
        if self._projector is not None:
            self._projector.close()
        self._context.close()
        self._model.close()


def _dispatch(events: list[tuple[Callable[[Any], None], Any]]) -> None:
    for callback, value in events:
        callback(value)


def _resolve(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    """A callback that settles `future`, unless its awaiter has gone."""

    def callback(value: Any) -> None:
        if future.done():
            return
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)

    return callback
