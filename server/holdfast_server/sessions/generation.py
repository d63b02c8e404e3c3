"""One Generate: from the wait for a slot to the journalled end.

The work runs in a task of its own, so that a client that goes away cannot stop
it half-way: what was streamed is journalled, and the cache is taken back to
exactly that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import (
    Ended,
    Feed,
    GenerationSpec,
    Piece,
    SamplerSpec,
    Span,
    StopCause,
    TokenSpan,
    Work,
)
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions.journal import Entry, Kind, Message, Outcome, TextPart, join
from holdfast_server.sessions.live import LiveSession, Loaded
from holdfast_server.sessions.manager import Sessions
from holdfast_server.sessions.session import (
    SERVER_SAMPLING,
    ChatFormat,
    Role,
    Sampling,
    SessionView,
    Usage,
    check_id,
    check_request_id,
    check_revision,
    check_sampling,
    reused,
)

MAX_UNREAD = 4096
"""Pieces a slow reader may leave unread before its stream is ended."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event: why it ended, the session afterwards, the cost."""

    cause: StopCause
    matched_stop: str
    session: SessionView
    usage: Usage


Event = Piece | Finished


async def generate(
    sessions: Sessions,
    owner: str,
    session_id: str,
    sampling: Sampling,
    expected_revision: int | None,
    request_id: str = "",
) -> AsyncGenerator[Event, None]:
    """Streams pieces and then exactly one Finished; closing it early cancels the generation.

    Raises HoldfastError, with the reasons that the service names.
    """
    check_id("session_id", session_id)
    check_sampling(sampling, context_tokens=sessions.engine.info.cells)
    check_request_id(request_id)
    run = _Run(sessions, sampling, expected_revision, request_id)
    task = sessions.spawn(run.main(owner, session_id))
    try:
        while True:
            event = await run.outbox.take()
            yield event
            if isinstance(event, Finished):
                return
    finally:
        run.abandon(task)


class _Outbox:
    """What the engine made and the client has not read yet."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Piece | Finished | BaseException] = asyncio.Queue()
        self.made: list[Piece] = []
        self.read = 0
        """Pieces of `made` that were handed to the client's stream."""
        self.full = False

    def put_piece(self, piece: Piece) -> bool:
        """Adds a piece; False, and the piece is dropped, when the reader is too far behind."""
        self.full = self.full or len(self.made) - self.read >= MAX_UNREAD
        if not self.full:
            self.made.append(piece)
            self._events.put_nowait(piece)
        return not self.full

    def put_last(self, event: Finished | BaseException) -> None:
        """Adds what ends the stream."""
        self._events.put_nowait(event)

    async def take(self) -> Event:
        """The next event. Raises what ended the generation early."""
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        if isinstance(event, Piece):
            self.read += 1
        return event


class _Run:
    """One generation. Event loop only."""

    def __init__(
        self, sessions: Sessions, sampling: Sampling, expected_revision: int | None, request_id: str
    ) -> None:
        self._request_id = request_id
        self._sessions = sessions
        self._engine = sessions.engine
        self._sampling = sampling
        self._expected_revision = expected_revision
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._generating = ""
        self._abandoned = False
        self.outbox = _Outbox()

    def abandon(self, task: asyncio.Task[object]) -> None:
        """The client is gone: stop, but journal what it was sent."""
        self._abandoned = True
        if self._ended.done():
            return  # a later generation may have the slot already
        if self._generating:
            self._sessions.spawn(self._engine.cancel(self._generating))
        else:
            task.cancel()

    async def main(self, owner: str, session_id: str) -> None:
        """Runs it all; whatever ends it goes into the outbox."""
        started = time.monotonic()
        try:
            async with self._sessions.registry.use(owner, session_id) as live:
                async with live.generation():
                    cause, matched_stop, usage = await self._generate(live)
                self._sessions.autosave.generated(live)
                usage.total_seconds = time.monotonic() - started
                self.outbox.put_last(Finished(cause, matched_stop, live.view, usage))
        # Not swallowed: the stream raises it, and the service maps it.
        except Exception as error:  # noqa: BLE001
            self.outbox.put_last(error)

    async def _generate(self, live: LiveSession) -> tuple[StopCause, str, Usage]:
        made = live.made_by(self._request_id)
        if made is not None:
            return self._replay(live.entries[made])
        check_revision(live.record, self._expected_revision)
        if not live.tokens:
            raise HoldfastError(
                Reason.NOTHING_TO_GENERATE_FROM, "the session is empty; append something before generating"
            )
        choice = self._sampling.over(live.settings.sampling.over(SERVER_SAMPLING))
        prompt = await self._sessions.composer.prompt(live.transcript, live.settings.chat_format)
        total = live.tokens + cells_of.count_cells(prompt)
        room = self._room(total)
        wanted = choice.max_tokens or room
        limit = min(wanted, room)
        async with self._sessions.residency.hold(live, total + limit) as loaded:
            work, ended = await self._compute(live, prompt, choice, limit)
            cause = ended.cause
            if cause is StopCause.MAX_TOKENS and limit < wanted:
                cause = StopCause.CONTEXT_FULL
            usage = _usage(work, loaded, ended, total, held=_ends_in_text([*live.spans, *prompt]))
            await self._keep(live, prompt, ended, cause)
        if self.outbox.full:
            raise HoldfastError(
                Reason.SLOW_READER,
                "the stream was read too slowly and has been ended; what was generated by then is journalled",
            )
        return cause, ended.matched_stop, usage

    def _replay(self, entry: Entry) -> tuple[StopCause, str, Usage]:
        """Streams again what the first of two equal requests generated. Raises REQUEST_ID_REUSED."""
        outcome, span = entry.outcome, entry.spans[-1]
        if outcome is None or not isinstance(span, TokenSpan):
            raise reused("request")
        text = "".join(part.text for part in entry.messages[0].parts if isinstance(part, TextPart))
        self.outbox.put_piece(Piece(tuple(span.tokens[span.cells - outcome.tokens :].tolist()), text))
        return outcome.cause, outcome.matched_stop, Usage(generated_tokens=outcome.tokens)

    def _room(self, total: int) -> int:
        room = self._engine.info.cells - total
        if room < 1:
            raise HoldfastError(
                Reason.CONTEXT_WINDOW_EXCEEDED,
                "the context window is full; start a new session, or restore an earlier checkpoint",
                metadata={"tokens": str(total), "context_tokens": str(self._engine.info.cells)},
            )
        return room

    async def _compute(
        self, live: LiveSession, prompt: tuple[Span, ...], choice: Sampling, limit: int
    ) -> tuple[Work, Ended]:
        """Prefills what is left and generates; when that fails, takes the cache back to the journal."""
        try:
            await self._engine.settle(live.key)
        except RuntimeError:
            await self._sessions.residency.drop(live)
            raise
        try:
            if prompt:
                await self._engine.feed(live.key, [Feed(span) for span in prompt])
                await self._engine.settle(live.key)
            work = await self._engine.take_work(live.key)
            spec = GenerationSpec(
                sampler=_sampler(choice, live.record.revision),
                max_tokens=limit,
                stop=choice.stop or (),
                recent=_recent([*live.spans, *prompt]),
            )
            self._generating = live.key
            await self._engine.generate(live.key, spec, self._on_event)
            return work, await self._ended
        except BaseException:
            await self._sessions.residency.rewind(live)
            raise

    def _on_event(self, event: Piece | Ended | BaseException) -> None:
        """The engine's sink."""
        if isinstance(event, Piece):
            was_full = self.outbox.full
            if not self.outbox.put_piece(event) and not was_full:
                self._sessions.spawn(self._engine.cancel(self._generating))
        elif not self._ended.done():
            if isinstance(event, Ended):
                self._ended.set_result(event)
            else:
                self._ended.set_exception(event)

    async def _keep(
        self, live: LiveSession, prompt: tuple[Span, ...], ended: Ended, cause: StopCause
    ) -> None:
        """Journals what was generated, or of an abandoned generation what was streamed."""
        outbox = self.outbox
        pieces = outbox.made[: outbox.read] if self._abandoned else outbox.made
        tokens = [token for piece in pieces for token in piece.tokens]
        whole = len(tokens) == len(ended.tokens)
        if tokens:
            role = Role.ASSISTANT if live.settings.chat_format is ChatFormat.TEMPLATE else None
            text = "".join(piece.text for piece in pieces)
            entry = Entry(
                kind=Kind.GENERATE,
                messages=(Message(role, (TextPart(text),)),),
                spans=join([*prompt, TokenSpan(np.array(tokens, np.int32))]),
                end=ended.end_text if whole else "",
                request_id=self._request_id,
                outcome=Outcome(
                    cause=cause if whole else StopCause.CANCELLED,
                    matched_stop=ended.matched_stop if whole else "",
                    tokens=len(tokens),
                ),
            )
            try:
                await self._sessions.commit(live, entry)
            except BaseException:
                await self._sessions.residency.drop(live)
                raise
        if not whole:
            await self._sessions.residency.rewind(live)


def _sampler(choice: Sampling, revision: int) -> SamplerSpec:
    """The sampler; its random stream is BLAKE3 of (seed, revision), so that a restored session repeats it."""
    choice = choice.over(SERVER_SAMPLING)
    stream = blake3(f"{choice.seed}:{revision}".encode()).digest(4)
    return SamplerSpec(
        temperature=choice.temperature or 0.0,
        top_p=choice.top_p or 1.0,
        top_k=choice.top_k or 0,
        min_p=choice.min_p or 0.0,
        repeat_penalty=choice.repeat_penalty or 1.0,
        frequency_penalty=choice.frequency_penalty or 0.0,
        presence_penalty=choice.presence_penalty or 0.0,
        seed=int.from_bytes(stream, "little"),
    )


def _recent(spans: Sequence[Span], count: int = 64) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """The last text tokens, oldest first: what the penalties look back on."""
    tokens = [span.tokens[-count:] for span in spans[-8:] if isinstance(span, TokenSpan)]
    return np.concatenate([np.empty(0, np.int32), *tokens])[-count:]


def _ends_in_text(spans: Sequence[Span]) -> bool:
    return cells_of.held_token(spans) is not None


def _usage(work: Work, loaded: Loaded, ended: Ended, total: int, *, held: bool) -> Usage:
    usage = loaded.cost(work, total)
    usage.cached_tokens = total - usage.prefilled_tokens - usage.restored_tokens - held
    usage.generated_tokens, usage.decode_seconds = len(ended.tokens), ended.seconds
    return usage
