"""Chunks to spans: validation, roles, the chat template, tokenizing, pictures laid out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from holdfast_server.engine.api import Engine, Feed, MediaSpan, Span
from holdfast_server.engine.pictures import mime_type
from holdfast_server.errors import HoldfastError, Reason, invalid
from holdfast_server.sessions.chat import ChatTemplate, Transcript
from holdfast_server.sessions.journal import ImagePart, Message, Part, TextPart, join
from holdfast_server.sessions.limits import Limits
from holdfast_server.sessions.session import ChatFormat, Chunk, ImageChunk, TextChunk


@dataclass(frozen=True, slots=True)
class Composed:
    """What an append adds: messages for the journal, spans and pictures for the engine."""

    messages: tuple[Message, ...]
    spans: tuple[Span, ...]
    feeds: tuple[Feed, ...]


class Composer:
    """Turns what clients say into what the model is fed. Event loop; the work runs on other threads."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        source = engine.info.chat_template
        self.template = (
            ChatTemplate(source, bos=engine.info.bos, eos=engine.info.eos) if source is not None else None
        )

    def check(self, chunks: Sequence[Chunk], chat_format: ChatFormat) -> None:
        """Refuses, before any work, what could never be appended. Raises HoldfastError."""
        if not chunks:
            raise HoldfastError(Reason.EMPTY_CHUNKS, "there is nothing to append; send at least one chunk")
        if len(chunks) > self._limits.chunks_per_append:
            raise invalid("chunks", f"may be at most {self._limits.chunks_per_append} in one call")
        for index, chunk in enumerate(chunks):
            self._check_chunk(f"chunks[{index}]", chunk, chat_format)
        text_bytes = sum(len(chunk.text.encode()) for chunk in chunks if isinstance(chunk, TextChunk))
        if text_bytes > self._limits.text_bytes:
            raise HoldfastError(
                Reason.PAYLOAD_TOO_LARGE, f"the text is {text_bytes} bytes; at most {self._limits.text_bytes}"
            )

    def _check_chunk(self, field: str, chunk: Chunk, chat_format: ChatFormat) -> None:
        if chat_format is ChatFormat.RAW and chunk.role is not None:
            raise invalid(f"{field}.role", "must be unset in a raw session")
        if chat_format is ChatFormat.TEMPLATE and chunk.role is None:
            raise invalid(f"{field}.role", "must be set in a chat-format session")
        if isinstance(chunk, ImageChunk):
            self._check_picture(field, chunk)
        elif not chunk.text:
            raise HoldfastError(Reason.EMPTY_CHUNKS, f"{field} is empty; leave it out", field=field)
        elif chunk.parse_special and chat_format is ChatFormat.TEMPLATE:
            raise invalid(f"{field}.parse_special", "is for raw sessions only")

    def _check_picture(self, field: str, chunk: ImageChunk) -> None:
        if not self._engine.info.vision:
            raise HoldfastError(
                Reason.MODALITY_NOT_SUPPORTED,
                "this server takes no pictures; start it with a projector (--mmproj)",
            )
        if not chunk.data:
            raise HoldfastError(Reason.EMPTY_CHUNKS, f"{field} has an empty picture", field=field)
        if len(chunk.data) > self._limits.media_bytes:
            raise HoldfastError(
                Reason.PAYLOAD_TOO_LARGE,
                f"{field} is {len(chunk.data)} bytes; a picture may have at most {self._limits.media_bytes}",
            )
        found = mime_type(chunk.data)
        if chunk.mime_type and chunk.mime_type != found:
            raise HoldfastError(
                Reason.UNSUPPORTED_MEDIA,
                f"{field} does not begin like {chunk.mime_type[:64]!r}; send PNG, JPEG or WEBP",
            )

    async def compose(
        self,
        transcript: Transcript,
        chat_format: ChatFormat,
        chunks: Sequence[Chunk],
        digests: Sequence[str],
        *,
        first: bool,
    ) -> Composed:
        """Renders, tokenizes and lays out; `digests` name the chunks' pictures, in order.

        The `first` chunks of a session follow what every session begins with.
        Raises HoldfastError: TEMPLATE_FAILED, UNSUPPORTED_MEDIA, MEDIA_UNREADABLE and the like.
        """
        messages = messages_of(chunks, digests)
        parts = [part for message in messages for part in message.parts]
        pictures = dict(zip(digests, pictures_of(chunks), strict=True))
        if chat_format is ChatFormat.TEMPLATE:
            parts = self._chat().append(transcript, messages)
        spans: list[Span] = [self._engine.begin()] if first else []
        for part in parts:
            spans += await self._lay_out(part, pictures)
        joined = join(spans)
        feeds = tuple(Feed(s, pictures[s.digest] if isinstance(s, MediaSpan) else b"") for s in joined)
        return Composed(tuple(messages), joined, feeds)

    async def prompt(self, transcript: Transcript, chat_format: ChatFormat) -> tuple[Span, ...]:
        """What goes before the model's own words: its turn's opening in a chat, nothing in a raw session."""
        if chat_format is ChatFormat.RAW:
            return ()
        parts = self._chat().prompt(transcript)
        return join([span for part in parts for span in await self._lay_out(part, {})])

    def _chat(self) -> ChatTemplate:
        if self.template is None:
            raise HoldfastError(
                Reason.NO_CHAT_TEMPLATE, "the model has no chat template; use a raw session with it"
            )
        return self.template

    async def _lay_out(self, part: Part, pictures: dict[str, bytes]) -> list[Span]:
        if isinstance(part, ImagePart):
            return await self._engine.lay_out(pictures[part.digest], part.digest)
        return [await self._engine.tokenize(part.text, parse_special=part.parse_special)]


def messages_of(chunks: Sequence[Chunk], digests: Sequence[str]) -> list[Message]:
    """Neighbouring chunks of one role as one message; `digests` name the pictures, in order."""
    names = iter(digests)
    pairs = groupby(((chunk.role, _part(chunk, names)) for chunk in chunks), key=lambda pair: pair[0])
    return [Message(role, tuple(part for _, part in group)) for role, group in pairs]


def pictures_of(chunks: Sequence[Chunk]) -> list[bytes]:
    """The picture files among the chunks, in order."""
    return [chunk.data for chunk in chunks if isinstance(chunk, ImageChunk)]


def _part(chunk: Chunk, digests: Iterator[str]) -> Part:
    if isinstance(chunk, ImageChunk):
        return ImagePart(next(digests))
    return TextPart(chunk.text, chunk.parse_special)
