"""The engine's work, one step at a time, without threads of its own.

A step: the decode rows of every running generation and a share of prefill rows
go into one batch; the batch is decoded; each generation samples; then one
encoded picture is decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from holdfast_server.engine import foreign
from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import (
    EngineRefused,
    Feed,
    GenerationSpec,
    KvPage,
    KvState,
    Sink,
    SlotClosed,
    Span,
    StopCause,
    TokenSpan,
    Work,
)
from holdfast_server.engine.encoder import Encoded, Encoder
from holdfast_server.engine.slot import Generation, PendingPicture, PendingText, Settled, Slot
from holdfast_server.llama import state
from holdfast_server.llama.context import Context, ContextFull, DecodeFailed
from holdfast_server.llama.model import Model

Post = Callable[[Callable[[], None]], None]
Emit = Callable[[Callable[[Any], None], Any], None]


class Core:
    """Slots and the step. Engine thread only; `post` brings work back to it from any thread.

    `emit(callback, value)` hands an event over; the events of one step travel together.
    """

    def __init__(
        self, model: Model, context: Context, encoder: Encoder | None, *, causal: bool, post: Post, emit: Emit
    ) -> None:
        self._model = model
        self._context = context
        self._encoder = encoder
        self._causal = causal
        self._post = post
        self._emit = emit
        self._slots: dict[str, Slot] = {}
        self._free = list(range(context.sequences - 1, -1, -1))

    # Slots

    def open(self, key: str) -> None:
        """Gives `key` an empty slot."""
        if key in self._slots or not self._free:
            raise RuntimeError("no slot can be opened")
        self._slots[key] = Slot(key, self._free.pop())

    def close(self, key: str) -> None:
        """Frees the slot and its cells; a running generation ends CANCELLED."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        self._end(slot, StopCause.CANCELLED)
        self._wake(slot, SlotClosed())
        slot.drop_pending()
        self._context.remove(slot.sequence)
        self._free.append(slot.sequence)

    def feed(self, key: str, feeds: Sequence[Feed]) -> None:
        """Queues spans; pictures go to the encoder at once."""
        slot = self._slot(key)
        for feed in feeds:
            if isinstance(feed.span, TokenSpan):
                self._model.check_tokens(feed.span.tokens)
                if feed.span.cells:
                    slot.pending.append(PendingText(feed.span.tokens))
            else:
                picture = PendingPicture(feed.span)
                slot.pending.append(picture)
                self._encode(slot, picture, feed.media)

    def settle(self, key: str, done: Settled) -> None:
        """Calls `done` once everything fed is in the cache, or with what went wrong."""
        slot = self._slot(key)
        slot.waiters.append(done)
        self._wake_if_settled(slot)

    def take_work(self, key: str) -> Work:
        """What was done for the slot since the last call."""
        return self._slot(key).take_work()

    def rewind(self, key: str, cells: int, position: int, held: int | None) -> None:
        """Drops what is behind `position`, queued or decoded."""
        slot = self._slot(key)
        self._end(slot, StopCause.CANCELLED)
        self._context.remove(slot.sequence, position)
        slot.cells, slot.position, slot.logits = cells, position, None
        slot.drop_pending()
        if held is not None:
            slot.hold(held)

    def share(self, source: str, key: str, cells: int) -> int:
        """Gives a fresh slot the first cells of another, as far as they are computed; how many."""
        origin, slot = self._slot(source), self._slot(key)
        if slot.cells or slot.pending:
            raise RuntimeError("the slot is not fresh")
        shared = min(cells, origin.cells)
        if shared:
            self._context.share(origin.sequence, slot.sequence, shared)
            slot.cells = slot.position = shared
        return shared

    # Generations

    def generate(self, key: str, spec: GenerationSpec, sink: Sink) -> None:
        """Starts a generation from the held-back token, or from the last picture's logits."""
        slot = self._settled_slot(key)
        if slot.generation is not None:
            raise RuntimeError("the slot is generating already")
        if not slot.pending and slot.logits is None:
            raise RuntimeError("the slot has nothing to generate from")
        slot.generation = Generation(self._model, spec, sink)

    def cancel(self, key: str) -> None:
        """Ends the slot's generation, if any."""
        slot = self._slots.get(key)
        if slot is not None:
            self._end(slot, StopCause.CANCELLED)

    # State

    def read(self, key: str, spans: Sequence[Span], first_cell: int) -> KvState:
        """Copies the cells from `first_cell` on into pages."""
        started = time.monotonic()
        slot = self._settled_slot(key)
        kept = cells_of.decoded(spans)
        positions = cells_of.cell_positions(kept)
        if len(positions) != slot.cells:
            raise RuntimeError("the slot does not hold the session it should")
        pages: list[KvPage] = []
        if first_cell < slot.cells:
            rows = self._context.read(slot.sequence, positions[first_cell:])
            pages = [
                KvPage(state.pack_page(rows, start - first_cell, stop - first_cell), stop - start)
                for start, stop in cells_of.cut(kept, first_cell)
            ]
        return KvState(pages, slot.logits, time.monotonic() - started)

    def load(self, key: str, spans: Sequence[Span], saved: KvState) -> float:
        """Fills a fresh slot with the cells of `spans` from pages, every field checked against them."""
        started = time.monotonic()
        slot = self._slot(key)
        if slot.cells or slot.pending:
            raise RuntimeError("the slot is not fresh")
        if saved.logits is not None:
            foreign.check_logits(saved.logits, self._model.vocab_size)
        if spans:
            try:
                pages = [state.unpack_page(page.content, self._context.layout) for page in saved.pages]
                self._context.write(slot.sequence, pages, cells_of.cell_positions(spans))
            except state.StateRefused as error:
                raise EngineRefused(str(error)) from error
        slot.cells, slot.position = cells_of.count_cells(spans), cells_of.count_positions(spans)
        slot.logits = saved.logits
        return time.monotonic() - started

    # The step

    def step(self) -> bool:
        """Does one step; False when there was nothing to do."""
        started = time.monotonic()
        batch = self._context.batch
        batch.clear()
        rows = self._add_generations()
        prefilling = self._add_prefill()
        if batch.size and self._decode([*rows, *prefilling]):
            self._sample(rows)
            seconds = time.monotonic() - started
            for slot in prefilling:
                slot.work.prefill_seconds += seconds
                self._wake_if_settled(slot)
        worked = bool(batch.size)
        return self._decode_picture() or worked

    def _add_generations(self) -> dict[Slot, int]:
        """Adds each running generation's row; a slot that ends in a picture samples at once."""
        rows: dict[Slot, int] = {}
        for slot in list(self._slots.values()):
            if slot.generation is None:
                continue
            if slot.logits is not None:
                self._take_sample(slot, slot.logits)
            if slot.generation is not None:
                tokens = slot.take_tokens(1)
                rows[slot] = self._context.batch.add(slot.sequence, slot.position, tokens, logits=True)
                slot.advance(1)
        return rows

    def _add_prefill(self) -> list[Slot]:
        """Fills the rest of the batch with prompt tokens, the slot that waited longest first."""
        batch = self._context.batch
        touched = []
        for slot in list(self._slots.values()):
            if not batch.room or slot.error or slot.generation or not slot.prefillable:
                continue
            while batch.room and slot.prefillable:
                tokens = slot.take_tokens(min(slot.prefillable, batch.room))
                batch.add(slot.sequence, slot.position, tokens, logits=False)
                slot.advance(len(tokens))
                slot.work.prefilled_tokens += len(tokens)
            touched.append(slot)
            self._slots[slot.key] = self._slots.pop(slot.key)
        return touched

    def _decode(self, slots: Sequence[Slot]) -> bool:
        try:
            self._context.decode()
        except (ContextFull, DecodeFailed) as error:
            for slot in slots:
                self._fail(slot, RuntimeError(f"llama.cpp could not decode: {error or 'no free cells'}"))
            return False
        return True

    def _sample(self, rows: dict[Slot, int]) -> None:
        for slot, row in rows.items():
            self._take_sample(slot, self._context.logits(row))

    def _take_sample(self, slot: Slot, logits: Any) -> None:
        generation = slot.generation
        if generation is None:
            return
        token, piece, cause = generation.sample(logits)
        slot.logits = None
        slot.hold(token)
        self._emit(generation.sink, piece)
        if cause is not None:
            self._end(slot, cause)

    # Pictures

    def _encode(self, slot: Slot, picture: PendingPicture, media: bytes) -> None:
        if self._encoder is None:
            raise RuntimeError("there is no projector")

        def done(future: Future[Encoded]) -> None:
            if not future.cancelled():
                self._post(lambda: self._encoded(slot, picture, future))

        picture.job = self._encoder.submit(picture.span, media, done)

    def _encoded(self, slot: Slot, picture: PendingPicture, future: Future[Encoded]) -> None:
        error = future.exception()
        if error is not None:
            if picture in slot.pending:
                self._fail(slot, RuntimeError(f"a picture could not be encoded: {error}"))
            return
        picture.embeddings, seconds = future.result()
        slot.work.encode_seconds += seconds
        slot.work.media_encoded += 1

    def _decode_picture(self) -> bool:
        """Decodes at most one encoded picture that is next in its session."""
        for slot in list(self._slots.values()):
            front = slot.pending[0] if slot.pending else None
            if not isinstance(front, PendingPicture) or front.embeddings is None or slot.error:
                continue
            slot.pending.popleft()
            self._prefill_picture(slot, front)
            return True
        return False

    def _prefill_picture(self, slot: Slot, picture: PendingPicture) -> None:
        started = time.monotonic()
        position = slot.position
        slot.advance(picture.span.cells)
        try:
            slot.logits = self._context.decode_embeddings(
                slot.sequence, position, _present(picture.embeddings), causal=self._causal
            )
        except (ContextFull, DecodeFailed) as error:
            self._fail(slot, RuntimeError(f"llama.cpp could not decode: {error or 'no free cells'}"))
            return
        slot.work.prefilled_tokens += picture.span.cells
        slot.work.prefill_seconds += time.monotonic() - started
        self._wake_if_settled(slot)

    # Ends

    def _end(self, slot: Slot, cause: StopCause) -> None:
        generation, slot.generation = slot.generation, None
        if generation is not None:
            for event in generation.end(cause):
                self._emit(generation.sink, event)

    def abort(self, error: BaseException) -> None:
        """The engine cannot go on: everyone who waits is told."""
        for slot in self._slots.values():
            self._fail(slot, error)

    def _fail(self, slot: Slot, error: BaseException) -> None:
        """The slot's cells cannot be trusted any more; its owner has to close it."""
        slot.error = error
        slot.drop_pending()
        generation, slot.generation = slot.generation, None
        if generation is not None:
            generation.end(StopCause.CANCELLED)
            self._emit(generation.sink, error)
        self._wake(slot, error)

    def _wake_if_settled(self, slot: Slot) -> None:
        if slot.error is not None:
            self._wake(slot, slot.error)
        elif slot.settled:
            self._wake(slot, None)

    def _wake(self, slot: Slot, value: BaseException | None) -> None:
        waiters, slot.waiters = slot.waiters, []
        for done in waiters:
            self._emit(done, value)

    def _slot(self, key: str) -> Slot:
        slot = self._slots.get(key)
        if slot is None:
            raise RuntimeError("the session holds no slot")
        if slot.error is not None:
            raise slot.error
        return slot

    def _settled_slot(self, key: str) -> Slot:
        slot = self._slot(key)
        if not slot.settled:
            raise RuntimeError("the slot is still prefilling")
        return slot


def _present(value: Any) -> Any:
    if value is None:
        raise RuntimeError("the picture is not encoded yet")
    return value
