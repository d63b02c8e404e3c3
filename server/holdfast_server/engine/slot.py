"""A slot: the llama.cpp sequence of one resident session, and what it is doing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from holdfast_server.engine.api import Ended, GenerationSpec, MediaSpan, Piece, Sink, StopCause, Tokens, Work
from holdfast_server.engine.encoder import Encoded
from holdfast_server.engine.text import TextStream
from holdfast_server.llama.model import Model
from holdfast_server.llama.sampler import Sampler

Settled = Callable[[BaseException | None], None]


@dataclass(slots=True, eq=False)
class PendingText:
    """Tokens that wait for prefill, shape [n], n > 0."""

    tokens: Tokens


@dataclass(slots=True, eq=False)
class PendingPicture:
    """A picture's run of embeddings, None until the encoder has made them."""

    span: MediaSpan
    embeddings: NDArray[np.float32] | None = None
    job: Future[Encoded] | None = None


class Generation:
    """One running generation. Engine thread only."""

    def __init__(self, model: Model, spec: GenerationSpec, sink: Sink) -> None:
        self._model = model
        self._spec = spec
        self._sampler = Sampler(model, spec.sampler, spec.recent)
        self._text = TextStream(spec.stop)
        self._tokens: list[int] = []
        self._started = time.monotonic()
        self.sink = sink

    def sample(self, logits: NDArray[np.float32]) -> tuple[int, Piece, StopCause | None]:
        """Samples one token: the token, what to stream, and why to end, if it ends here."""
        token = self._sampler.sample(logits)
        self._tokens.append(token)
        ended = self._model.is_end(token)
        text = self._text.finish() if ended else self._text.push(self._model.piece(token))
        return token, Piece((token,), text), self._cause(ended)

    def _cause(self, ended: bool) -> StopCause | None:
        if self._text.matched:
            return StopCause.STOP_STRING
        if ended:
            return StopCause.END_OF_TURN
        return StopCause.MAX_TOKENS if len(self._tokens) >= self._spec.max_tokens else None

    def end(self, cause: StopCause) -> list[Piece | Ended]:
        """Frees the sampler; the last events: held-back text, then the end."""
        self._sampler.close()
        rest = self._text.finish()
        ended = Ended(
            cause=cause,
            tokens=tuple(self._tokens),
            end_text=self._end_text(),
            matched_stop=self._text.matched,
            seconds=time.monotonic() - self._started,
        )
        return [Piece((), rest), ended] if rest else [ended]

    def _end_text(self) -> str:
        last = self._tokens[-1] if self._tokens else None
        if last is None or not self._model.is_end(last):
            return ""
        return self._model.piece(last, special=True).decode("utf-8", "replace")


@dataclass(slots=True, eq=False)
class Slot:
    """Engine thread only."""

    key: str
    sequence: int
    cells: int = 0
    position: int = 0
    pending: deque[PendingText | PendingPicture] = field(default_factory=deque)
    logits: NDArray[np.float32] | None = None
    """The last row's, where a picture is last and nothing is held back."""
    generation: Generation | None = None
    work: Work = field(default_factory=Work)
    waiters: list[Settled] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def settled(self) -> bool:
        """Whether all but a held-back token is in the cache."""
        if len(self.pending) > 1:
            return False
        return not self.pending or (isinstance(self.pending[0], PendingText) and self.prefillable == 0)

    @property
    def prefillable(self) -> int:
        """Text tokens at the front that may be decoded: all but the session's very last."""
        front = self.pending[0] if self.pending else None
        if not isinstance(front, PendingText):
            return 0
        return len(front.tokens) - (len(self.pending) == 1)

    def take_tokens(self, count: int) -> Tokens:
        """Removes `count` tokens from the text at the front."""
        front = self.pending[0]
        if not isinstance(front, PendingText):
            raise TypeError("no text is at the front")
        taken, rest = front.tokens[:count], front.tokens[count:]
        if len(rest):
            front.tokens = rest
        else:
            self.pending.popleft()
        return taken

    def drop_pending(self) -> None:
        """Forgets what waits; pictures that are not being encoded yet never will be."""
        for item in self.pending:
            if isinstance(item, PendingPicture) and item.job is not None:
                item.job.cancel()
        self.pending.clear()

    def hold(self, token: int) -> None:
        """Queues one token, which is then the one held back."""
        self.pending.append(PendingText(np.array([token], np.int32)))

    def advance(self, cells: int) -> None:
        """Counts rows that are about to be decoded, one position each."""
        self.cells += cells
        self.position += cells
        self.logits = None

    def take_work(self) -> Work:
        """The work since the last call."""
        work, self.work = self.work, Work()
        return work
