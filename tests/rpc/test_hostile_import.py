"""Files that forgers and accidents make: refused by name, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from holdfast_server.engine.api import KvState
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions.archive import Kind
from holdfast_server.sessions.importing import Imports
from holdfast_server.sessions.inspection import check_size
from tests.archives import Records, bodies, join, relisted, replaced, split, take_in, with_head
from tests.calls import RAW, append, checkpoint, create, generate, image, pb, png, raw, restore, text
from tests.conftest import RunningServer, StartServer
from tests.rpc.test_transfer import RESTORED, export

IMPORT = Reason.IMPORT_REFUSED
LARGE = Reason.PAYLOAD_TOO_LARGE


class Target:
    """A server with a neighbour in it, which has to stay as it is."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.stub = server.stub
        self.sessions = server.server.sessions
        self.imports = Imports(self.sessions)

    async def neighbour(self) -> list[bytes]:
        """The neighbour's cells as they lie in the context."""
        async with self.sessions.registry.use("default", "neighbour") as live:
            state: KvState = await self.sessions.engine.read(live.key, live.spans, 0)
        return [page.content.tobytes() for page in state.pages]

    def blobs(self) -> set[str]:
        """The names of all stored blobs."""
        return {path.name for path in (self.server.data_dir / "blobs").rglob("*") if path.is_file()}

    async def checkpoints(self) -> list[str]:
        """The ids of all checkpoints."""
        return [c.checkpoint_id for c in await self.sessions.store.catalog.list_checkpoints("default")]

    async def refusal(self, data: bytes) -> Reason:
        """Why the file is refused; fails when it is not."""
        try:
            await take_in(self.imports, data, "forged")
        except HoldfastError as error:
            return error.reason
        raise AssertionError("the file was taken")


@pytest.fixture
async def target(server: RunningServer) -> AsyncIterator[Target]:
    """The server, checked afterwards: neighbour and store are as they were, and it serves on."""
    target = Target(server)
    await create(server.stub, "neighbour")
    await append(server.stub, text("the tide " * 40), image(png(9)), session_id="neighbour")
    await checkpoint(server.stub, "neighbour", "theirs")
    cells, blobs, names = await target.neighbour(), target.blobs(), await target.checkpoints()
    yield target
    assert await target.neighbour() == cells
    assert (target.blobs(), await target.checkpoints()) == (blobs, names)
    again = await checkpoint(server.stub, "neighbour", "again")
    assert (again.usage.pages_written, again.usage.prefilled_tokens) == (0, 0)
    await generate(server.stub, "neighbour")


async def exported(other: RunningServer, *, words: str = "an island " * 60, picture: bool = True) -> bytes:
    """A file of a raw session that ends in text."""
    await create(other.stub, chat_format=RAW)
    await append(other.stub, *([raw("see "), raw(png(3))] if picture else []), raw(words))
    await checkpoint(other.stub)
    return await export(other.stub)


@pytest.fixture
async def other(start_server: StartServer, tmp_path: Path) -> RunningServer:
    """Where the files come from."""
    return await start_server(data_dir=tmp_path / "other")


async def test_every_truncation_is_refused(target: Target, other: RunningServer) -> None:
    data = await exported(other, words="ab", picture=False)
    assert len(data) < 20_000
    for end in range(len(data)):
        assert await target.refusal(data[:end]) is IMPORT, end
    assert await target.refusal(data + b"\0") is IMPORT


async def test_flipped_bits_are_refused(target: Target, other: RunningServer) -> None:
    data = await exported(other, words="abcdefgh")
    chance = random.Random(7)
    for _ in range(2000):
        bit = chance.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert await target.refusal(bytes(flipped)) in (IMPORT, LARGE), bit


def head(**changes: object) -> Callable[[Records], Records]:
    return lambda records: with_head(records, **changes)


def page(change: Callable[[bytearray], None], number: int = 0) -> Callable[[Records], Records]:
    """Alters a page and makes every digest right again."""

    def apply(records: Records) -> Records:
        body = bytearray(bodies(records, Kind.PAGE)[number])
        change(body)
        return relisted(replaced(records, Kind.PAGE, bytes(body), number))

    return apply


def position(value: int, cell: int = 3) -> Callable[[bytearray], None]:
    return lambda body: struct.pack_into("<i", body, 16 + 4 * cell, value)


def half(value: float) -> Callable[[bytearray], None]:
    return lambda body: struct.pack_into("<e", body, len(body) - 2 * 77, value)


def entry(change: Callable[[dict[str, object]], object]) -> Callable[[Records], Records]:
    """Alters the journal entry."""

    def apply(records: Records) -> Records:
        data = json.loads(bodies(records, Kind.ENTRY)[0])
        made = change(data) or data
        body = json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()
        return replaced(records, Kind.ENTRY, body)

    return apply


def span(number: int, **changes: object) -> Callable[[Records], Records]:
    return entry(lambda data: data["spans"][number].update(changes))  # type: ignore[index]


def without(kind: Kind) -> Callable[[Records], Records]:
    return lambda records: [record for record in records if record[0] is not kind]


def body(kind: Kind, data: bytes) -> Callable[[Records], Records]:
    return lambda records: replaced(records, kind, data)


def swapped(records: Records) -> Records:
    pages = [index for index, (kind, _) in enumerate(records) if kind is Kind.PAGE]
    records = list(records)
    records[pages[0]], records[pages[1]] = records[pages[1]], records[pages[0]]
    return relisted(records)


def doubled(kind: Kind) -> Callable[[Records], Records]:
    def apply(records: Records) -> Records:
        at = next(index for index, record in enumerate(records) if record[0] is kind)
        return [*records[: at + 1], *records[at:]]

    return apply


def truncated_page(records: Records) -> Records:
    return relisted(replaced(records, Kind.PAGE, bodies(records, Kind.PAGE)[0][:-1]))


def unlisted(records: Records) -> Records:
    at = 16 + 4 * 256 + 2 * 9
    data = bytearray(bodies(records, Kind.PAGE)[0])
    data[at] ^= 1
    return replaced(records, Kind.PAGE, bytes(data))


NESTED = b'{"v":1,"kind":"append","messages":' + b"[" * 100_000 + b"]" * 100_000 + b',"spans":[],"end":""}'
MUTATIONS: dict[str, tuple[Callable[[Records], Records], Reason]] = {
    "position -1": (page(position(-1)), IMPORT),
    "position -2": (page(position(-2)), IMPORT),
    "position INT32_MAX": (page(position(2**31 - 1)), IMPORT),
    "position doubled": (page(position(4)), IMPORT),
    "page cell count": (page(lambda b: struct.pack_into("<I", b, 8, 255)), IMPORT),
    "page cell count of 4 billion": (page(lambda b: struct.pack_into("<I", b, 8, 2**32 - 1)), IMPORT),
    "page row size": (page(lambda b: struct.pack_into("<I", b, 12, 2**31)), IMPORT),
    "page version": (page(lambda b: struct.pack_into("<H", b, 4, 2)), IMPORT),
    "page magic": (page(lambda b: b.__setitem__(0, 0)), IMPORT),
    "NaN in a row": (page(half(float("nan"))), IMPORT),
    "infinity in the last page": (page(half(float("-inf")), -1), IMPORT),
    "swapped pages": (swapped, IMPORT),
    "truncated page": (truncated_page, IMPORT),
    "a page that the manifest does not list": (unlisted, IMPORT),
    "missing page": (without(Kind.PAGE), IMPORT),
    "missing picture": (without(Kind.MEDIA), IMPORT),
    "missing picture, not declared": (lambda r: without(Kind.MEDIA)(with_head(r, media=0)), IMPORT),
    "missing entry": (without(Kind.ENTRY), IMPORT),
    "missing manifest": (without(Kind.MANIFEST), IMPORT),
    "doubled entry": (doubled(Kind.ENTRY), IMPORT),
    "doubled picture": (lambda r: doubled(Kind.MEDIA)(with_head(r, media=2)), IMPORT),
    "another picture": (body(Kind.MEDIA, png(4)), IMPORT),
    "a picture that is none": (body(Kind.MEDIA, b"GIF89a" + bytes(99)), Reason.UNSUPPORTED_MEDIA),
    "a picture of 30 MiB": (body(Kind.MEDIA, bytes(30 * 2**20)), LARGE),
    "no records": (lambda records: [], IMPORT),
    "reversed records": (lambda records: records[::-1], IMPORT),
    "token count": (head(token_count=7), IMPORT),
    "token count of the whole window": (head(token_count=2048), IMPORT),
    "token count beyond the window": (head(token_count=2049), Reason.CONTEXT_WINDOW_EXCEEDED),
    "negative token count": (head(token_count=-1), IMPORT),
    "token count as text": (head(token_count="602"), IMPORT),
    "position of the next token": (head(position=3), IMPORT),
    "revision 0": (head(revision=0), IMPORT),
    "revision 2**31": (head(revision=2**31), IMPORT),
    "revision of a million": (head(revision=10**6), IMPORT),
    "a trillion cells": (head(page_cells=[10**12]), IMPORT),
    "a page of all cells": (head(page_cells=[600]), IMPORT),
    "pages of no cells": (head(page_cells=[0] * 5), IMPORT),
    "fewer pages": (head(page_cells=[256]), IMPORT),
    "logits that should not be": (head(logits=True), IMPORT),
    "another vocabulary": (
        head(settings={"chat_format": "raw", "sampling": {}, "token_key": "0" * 64}),
        Reason.MODEL_MISMATCH,
    ),
    "settings without a key": (head(settings={"chat_format": "raw", "sampling": {}}), IMPORT),
    "an unknown format": (head(settings={"chat_format": "x", "sampling": {}, "token_key": ""}), IMPORT),
    "sampling of text": (
        head(settings={"chat_format": "raw", "sampling": {"top_k": "9"}, "token_key": ""}),
        IMPORT,
    ),
    "sampling out of bounds": (
        head(settings={"chat_format": "raw", "sampling": {"temperature": 1e9}, "token_key": ""}),
        IMPORT,
    ),
    "sampling of NaN": (
        head(settings={"chat_format": "raw", "sampling": {"min_p": float("nan")}, "token_key": ""}),
        IMPORT,
    ),
    "an id with a path in it": (head(checkpoint_id="../../etc/passwd"), IMPORT),
    "labels of numbers": (head(labels={"a": 1}), IMPORT),
    "labels without end": (head(labels={str(n): "x" for n in range(65)}), IMPORT),
    "half a surrogate": (body(Kind.HEAD, b'{"v":1,"model":"\\ud800"}'), IMPORT),
    "a model without end": (head(model="m" * 5000), IMPORT),
    "created before time": (head(created=-1), IMPORT),
    "another version of the head": (head(v=2), IMPORT),
    "a head of a list": (body(Kind.HEAD, b"[]"), IMPORT),
    "a deep head": (body(Kind.HEAD, b"[" * 200_000), IMPORT),
    "a huge number": (body(Kind.HEAD, b'{"v":' + b"9" * 200_000 + b"}"), IMPORT),
    "a huge head": (body(Kind.HEAD, b" " * 2**21), LARGE),
    "a huge entry": (body(Kind.ENTRY, b" " * (17 * 2**20)), LARGE),
    "a deep entry": (body(Kind.ENTRY, NESTED), IMPORT),
    "an entry of a newer version": (entry(lambda data: data.update(v=2)), IMPORT),
    "an entry of nothing": (body(Kind.ENTRY, b"null"), IMPORT),
    "an entry with more in it": (entry(lambda data: data.update(more=1)), IMPORT),
    "an entry with spaces": (body(Kind.ENTRY, b'{"v": 1}'), IMPORT),
    "text of numbers": (entry(lambda d: d["messages"][0]["parts"].__setitem__(0, {"text": 5})), IMPORT),  # type: ignore[index]
    "an end of numbers": (entry(lambda data: data.update(end=5)), IMPORT),
    "token -1": (entry(lambda d: d["spans"][0]["tokens"].__setitem__(0, -1)), IMPORT),  # type: ignore[index]
    "token 2**31 - 1": (entry(lambda d: d["spans"][0]["tokens"].__setitem__(0, 2**31 - 1)), IMPORT),  # type: ignore[index]
    "token 2**63": (entry(lambda d: d["spans"][0]["tokens"].__setitem__(0, 2**63)), IMPORT),  # type: ignore[index]
    "token 1.5": (entry(lambda d: d["spans"][0]["tokens"].__setitem__(0, 1.5)), IMPORT),  # type: ignore[index]
    "tokens of lists": (span(0, tokens=[[1, 2]]), IMPORT),
    "a token more": (entry(lambda d: d["spans"][0]["tokens"].append(1)), IMPORT),  # type: ignore[index]
    "a picture of more cells": (span(1, cells=999, positions=999), IMPORT),
    "a picture of negative cells": (span(1, cells=-5), IMPORT),
    "a picture of fewer positions": (span(1, positions=1), IMPORT),
    "a picture of true cells": (span(1, index=False), IMPORT),
    "another part of a picture": (span(1, index=7), IMPORT),
    "a picture that is not there": (span(1, media="f" * 64), IMPORT),
    "a picture by a path": (span(1, media="../catalog.sqlite3"), IMPORT),
}


async def test_forgeries_are_refused_by_name(target: Target, other: RunningServer) -> None:
    sound = split(await exported(other))
    assert [span.keys() for span in json.loads(bodies(sound, Kind.ENTRY)[0])["spans"]][1] >= {"media"}
    wrong = {}
    for name, (mutate, reason) in MUTATIONS.items():
        found = await target.refusal(join(mutate(sound)))
        if found is not reason:
            wrong[name] = found
    assert wrong == {}


async def test_absurd_sizes_are_refused_before_anything_is_allocated(
    target: Target, other: RunningServer
) -> None:
    data = bytearray(await exported(other, picture=False))
    head_bytes = struct.unpack_from("<Q", data, 24)[0]
    entry_at = 16 + 16 + head_bytes + 32
    for at in (16, entry_at):
        for declared in (2**40, 2**63, 2**64 - 1, 1000 * len(data)):
            forged = bytearray(data)
            struct.pack_into("<Q", forged, at + 8, declared)
            reason = await target.refusal(bytes(forged))
            assert reason is (LARGE if declared > 2**30 else reason)
            assert reason in (LARGE, IMPORT)


async def test_an_upload_larger_than_any_file_is_cut_off(target: Target) -> None:
    info = target.sessions.engine.info
    limits = target.sessions.limits
    most = limits.archive_bytes + info.cells * (info.cell_bytes + 64)
    check_size(most, target.sessions.engine, limits)
    with pytest.raises(HoldfastError) as caught:
        check_size(most + 1, target.sessions.engine, limits)
    assert caught.value.reason is LARGE


async def test_another_models_pages_under_this_ones_key(
    target: Target, start_server: StartServer, tmp_path: Path
) -> None:
    stranger = await start_server("llama-q8_0", data_dir=tmp_path / "stranger")
    records = split(await exported(stranger, picture=False))
    key = target.sessions.engine.info.compatibility_key
    data = join(with_head(records, compatibility_key=key))
    # The layout is the same, so the cells are taken for what they claim to be: what is
    # certain is that they are finite, where they should be, and this owner's own affair.
    await take_in(target.imports, data, "forged")
    reply = await restore(target.stub, "b", "forged")
    assert reply.mode == RESTORED
    await generate(target.stub, "b")
    await target.sessions.delete("default", "b")
    await target.stub.DeleteCheckpoint(pb.DeleteCheckpointRequest(checkpoint_id="forged"))
    await target.sessions.store.collect()


async def test_logits_that_are_not_finite(target: Target, other: RunningServer) -> None:
    await create(other.stub, chat_format=RAW)
    await append(other.stub, raw("see "), raw(png(3)))
    await checkpoint(other.stub)
    records = split(await export(other.stub))
    row = np.frombuffer(bodies(records, Kind.LOGITS)[0], "<f4").copy()
    row[5] = np.nan
    for forged in (row.tobytes(), row[:-1].tobytes(), row.tobytes()[:-1], b""):
        changed = relisted(replaced(records, Kind.LOGITS, forged))
        assert await target.refusal(join(changed)) is IMPORT


async def test_sound_and_forged_files_at_once(target: Target, other: RunningServer) -> None:
    sound = await exported(other)
    forged = join(page(half(float("nan")))(split(sound)))
    outcomes = await asyncio.gather(
        *(target.refusal(forged) for _ in range(4)),
        take_in(target.imports, sound, "sound"),
    )
    assert outcomes[:4] == [IMPORT] * 4
    assert (await restore(target.stub, "b", "sound")).mode == RESTORED
    await target.sessions.delete("default", "b")
    await target.stub.DeleteCheckpoint(pb.DeleteCheckpointRequest(checkpoint_id="sound"))
    await target.sessions.store.collect()
