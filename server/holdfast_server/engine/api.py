"""The engine as sessions see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from holdfast_server.llama.specs import SamplerSpec as SamplerSpec

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class TokenSpan:
    """A run of text tokens, shape [n]: one cell and one position each."""

    tokens: Tokens

    @property
    def cells(self) -> int:
        """KV cells the span takes."""
        return len(self.tokens)

    @property
    def positions(self) -> int:
        """llama.cpp positions the span takes."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """A run of embeddings of one picture."""

    digest: str
    """Of the picture's original file, in hexadecimal."""
    index: int
    """Which of the picture's media chunks this is."""
    cells: int
    positions: int


Span = TokenSpan | MediaSpan


@dataclass(frozen=True, slots=True)
class Feed:
    """A span to prefill, with the picture's original file where it is a media span."""

    span: Span
    media: bytes = b""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the loaded model is and can do; constant while the server runs."""

    model_name: str
    model_description: str
    parameter_count: int
    trained_context: int
    memory_kind: str
    vision: bool
    chat_template: str | None
    bos: str
    eos: str
    library_version: str
    slots: int
    cells: int
    cell_bytes: int
    """Bytes that one cell takes in a page."""
    compatibility_key: str
    """Equal keys: KV pages of one can be used by the other."""
    token_key: str
    """Equal keys: token ids and media spans mean the same."""


@dataclass(slots=True)
class Work:
    """What the engine did for a session since it was last asked."""

    prefilled_tokens: int = 0
    media_encoded: int = 0
    prefill_seconds: float = 0.0
    encode_seconds: float = 0.0


class StopCause(StrEnum):
    """Why a generation ended."""

    END_OF_TURN = "END_OF_TURN"
    STOP_STRING = "STOP_STRING"
    MAX_TOKENS = "MAX_TOKENS"
    CONTEXT_FULL = "CONTEXT_FULL"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """What to generate. `recent` are the session's last tokens, for the penalties."""

    sampler: SamplerSpec
    max_tokens: int
    stop: tuple[str, ...] = ()
    recent: Tokens = field(default_factory=lambda: np.empty(0, np.int32))


@dataclass(frozen=True, slots=True)
class Piece:
    """Newly sampled tokens and the text that became whole with them."""

    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a generation; `tokens` are all it sampled, the end-of-turn token included."""

    cause: StopCause
    tokens: tuple[int, ...]
    end_text: str
    """Text of the end-of-turn token that the model sampled last, empty where it did not."""
    matched_stop: str
    seconds: float


@dataclass(frozen=True, slots=True)
class KvPage:
    """The content of one page as the engine reads and takes it: opaque bytes, and how many cells."""

    content: NDArray[np.uint8]
    cells: int


@dataclass(frozen=True, slots=True)
class KvState:
    """The KV state of a session from some cell on, as pages in order.

    `logits` is the last row's, shape [vocabulary], float32, when the session
    ends in a picture and so has no token held back.
    """

    pages: list[KvPage]
    logits: NDArray[np.float32] | None
    seconds: float


class EngineRefused(Exception):
    """The engine did not take a state; the slot is empty and the caller may prefill instead."""


class SlotClosed(Exception):
    """The slot was given up, to another session or because its session is gone, while someone waited."""


Sink = Callable[[Piece | Ended | BaseException], None]
"""Takes a generation's events, in order, on the event loop; the last is Ended or an exception."""


class Engine(ABC):
    """Computes for sessions that hold a slot, each under a key of the caller's choice.

    Every method is called on the event loop and none blocks it. Errors of the
    engine itself (a failed decode) surface as RuntimeError from `settle`, `read`
    and `generate`, and cost only the slot: the caller closes it and rebuilds.
    Once the engine has stopped or died, every wait ends with RuntimeError.
    """

    info: EngineInfo

    @abstractmethod
    async def tokenize(self, text: str, *, parse_special: bool) -> TokenSpan:
        """Text to tokens; any number at once."""

    @abstractmethod
    def begin(self) -> TokenSpan:
        """What every session starts with: the BOS token where the model wants one, else nothing."""

    @abstractmethod
    async def lay_out(self, picture: bytes, digest: str) -> list[Span]:
        """What a picture file becomes. Raises HoldfastError (UNSUPPORTED_MEDIA, MEDIA_UNREADABLE ...)."""

    @abstractmethod
    async def open(self, key: str) -> None:
        """Takes a free slot. The caller sees to it that there is one."""

    @abstractmethod
    async def close(self, key: str) -> None:
        """Frees the slot and its cells, whatever it is doing. Closing what is not open does nothing."""

    @abstractmethod
    async def share(self, source: str, key: str, cells: int) -> int:
        """Gives a fresh slot the first cells of another slot, copying nothing.

        Returns how many, which is fewer when the source has not computed them all.
        """

    @abstractmethod
    async def feed(self, key: str, feeds: Sequence[Feed]) -> None:
        """Queues spans for prefill and returns at once. The last text token stays undecoded."""

    @abstractmethod
    async def settle(self, key: str) -> None:
        """Waits until everything fed is in the cache. Raises SlotClosed when the slot is given up."""

    @abstractmethod
    async def take_work(self, key: str) -> Work:
        """What was done for the slot since the last call."""

    @abstractmethod
    async def rewind(self, key: str, cells: int, position: int, held: int | None) -> None:
        """Drops the cells from `position` on; `held` is the token to hold back there."""

    @abstractmethod
    async def generate(self, key: str, spec: GenerationSpec, sink: Sink) -> None:
        """Starts a generation on a settled slot; returns once it runs."""

    @abstractmethod
    async def cancel(self, key: str) -> None:
        """Ends the slot's generation with CANCELLED, if one runs."""

    @abstractmethod
    async def read(self, key: str, spans: Sequence[Span], first_cell: int) -> KvState:
        """The settled slot's cells from `first_cell` on; `spans` is the whole session."""

    @abstractmethod
    async def load(self, key: str, spans: Sequence[Span], state: KvState) -> float:
        """Fills a fresh slot with pages that hold exactly the cells of `spans`; the seconds it took.

        Raises EngineRefused, and leaves the slot empty, when a page is not what `spans` says.
        """

    @abstractmethod
    async def check(self, spans: Sequence[Span], state: KvState, first_cell: int = 0) -> None:
        """Looks at spans and pages from outside, without loading anything; needs no slot.

        `spans` are a whole session; the pages hold its cells from `first_cell`
        on, as far as they go. Raises EngineRefused for a token id outside the
        vocabulary, for a page that is not what `spans` says, and for a number
        in a page or the logits that is not finite.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Ends the engine's threads and frees the model."""
