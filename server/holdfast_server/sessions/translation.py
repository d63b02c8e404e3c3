"""A journal of one model, told to another: what was said is tokenized and laid out anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import Engine, TokenSpan
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions import journal
from holdfast_server.sessions import manifest as manifests
from holdfast_server.sessions.chat import Transcript
from holdfast_server.sessions.composer import Composer
from holdfast_server.sessions.journal import Entry, ImagePart, Kind, Message, join
from holdfast_server.sessions.manifest import Manifest
from holdfast_server.sessions.session import ChatFormat, Chunk, ImageChunk, TextChunk, new_id
from holdfast_server.store.catalog import CheckpointRecord
from holdfast_server.store.damage import Damage
from holdfast_server.store.store import Store


class Translator:
    """Event loop only; the work runs on the engine's tokenizer threads."""

    def __init__(self, engine: Engine, store: Store, composer: Composer) -> None:
        self._engine = engine
        self._store = store
        self._composer = composer

    async def translate(self, checkpoint: CheckpointRecord) -> CheckpointRecord:
        """The same conversation as a checkpoint for this model, without pages.

        Raises HoldfastError: JOURNAL_CORRUPT, and what appending to this model
        raises, such as MODALITY_NOT_SUPPORTED or TEMPLATE_FAILED.
        """
        settings = journal.decode_settings(checkpoint.settings)
        entries = await self._read(checkpoint)
        told: list[Entry] = []
        transcript = Transcript()
        for entry in entries:
            new = await self._tell(checkpoint.owner, transcript, entry, settings.chat_format, first=not told)
            transcript.add(new)
            told.append(new)
        spans = join([span for entry in told for span in entry.spans])
        record = replace(
            checkpoint,
            checkpoint_id=new_id("auto"),
            automatic=True,
            pinned=False,
            token_count=cells_of.count_cells(spans),
            position=cells_of.count_positions(spans),
            model=self._engine.info.model_name,
            compatibility_key="",
            page_count=0,
            raw_bytes=0,
            stored_bytes=0,
            settings=journal.encode_settings(replace(settings, token_key=self._engine.info.token_key)),
        )
        async with self._store.writing():
            return await self._store.catalog.import_checkpoint(
                record,
                journal=[(journal.encode(entry), entry.media) for entry in told],
                manifest=manifests.encode(Manifest()),
                pages=[],
            )

    async def _read(self, checkpoint: CheckpointRecord) -> list[Entry]:
        try:
            entries = await self._store.catalog.journal(checkpoint.owner, checkpoint.head)
            return [journal.decode(entry.payload) for entry in entries]
        except Damage as error:
            raise _damaged() from error

    async def _tell(
        self, owner: str, transcript: Transcript, entry: Entry, chat_format: ChatFormat, *, first: bool
    ) -> Entry:
        if entry.kind is Kind.GENERATE:
            return await self._say_again(transcript, entry, chat_format)
        chunks = [chunk for message in entry.messages for chunk in await self._chunks(owner, message)]
        digests = [part.digest for m in entry.messages for part in m.parts if isinstance(part, ImagePart)]
        composed = await self._composer.compose(transcript, chat_format, chunks, digests, first=first)
        return replace(entry, spans=composed.spans)

    async def _say_again(self, transcript: Transcript, entry: Entry, chat_format: ChatFormat) -> Entry:
        """What the other model generated, in the words of this one."""
        prompt = await self._composer.prompt(transcript, chat_format)
        words = "".join(part.text for part in entry.messages[0].parts if not isinstance(part, ImagePart))
        spoken = await self._engine.tokenize(words, parse_special=False)
        end = self._engine.info.eos if entry.end else ""
        closing = await self._engine.tokenize(end, parse_special=True)
        tokens = TokenSpan(np.concatenate([spoken.tokens, closing.tokens]))
        outcome = replace(entry.outcome, tokens=tokens.cells) if entry.outcome else None
        return replace(entry, spans=join([*prompt, tokens]), end=end, outcome=outcome)

    async def _chunks(self, owner: str, message: Message) -> Sequence[Chunk]:
        chunks: list[Chunk] = []
        for part in message.parts:
            if isinstance(part, ImagePart):
                try:
                    chunks.append(ImageChunk(message.role, await self._store.get_media(owner, part.digest)))
                except Damage as error:
                    raise _damaged() from error
            else:
                chunks.append(TextChunk(message.role, part.text, part.parse_special))
        return chunks


def _damaged() -> HoldfastError:
    return HoldfastError(
        Reason.JOURNAL_CORRUPT,
        "the checkpoint's journal is damaged in the store; restore the data directory from a backup",
    )
