"""What a client was told, kept outside the server, and the comparison with what the store holds."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from holdfast_server.errors import HoldfastError
from holdfast_server.sessions import journal
from holdfast_server.sessions.journal import Kind, TextPart
from holdfast_server.store.store import Store
from tests.calls import RAW, append, checkpoint, create, generate, pb, raw
from tests.calls import restore as restore_call

OWNER = "default"
SHORT = {"temperature": 0.0, "max_tokens": 3}
Told = tuple[str, str]
"""Kind and text of an entry."""


async def stored(store: Store, head: int | None) -> list[Told]:
    """The entries up to a head, as the store has them."""
    entries = [journal.decode(entry.payload) for entry in await store.catalog.journal(OWNER, head)]
    return [(entry.kind.value, _text(entry)) for entry in entries]


def _text(entry: journal.Entry) -> str:
    return "".join(p.text for m in entry.messages for p in m.parts if isinstance(p, TextPart))


@dataclass
class Writer:
    """One client that does all sorts of things to sessions of its own."""

    name: str
    chance: random.Random
    sessions: dict[str, list[Told]] = field(default_factory=dict)
    checkpoints: dict[str, list[Told]] = field(default_factory=dict)
    underway: tuple[str, Any] | None = None
    """What was asked and not answered: a session's name and the entry, or a name alone."""
    acknowledged: int = 0
    _made: int = 0

    async def work(self, stub: Any) -> None:
        """Does one thing after the other until the server is gone."""
        try:
            while True:
                await self._one(stub)
                self.underway = None
                self.acknowledged += 1
        except grpc.aio.AioRpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error

    async def _one(self, stub: Any) -> None:
        if not self.sessions:
            return await self._create(stub)
        doing = self.chance.choices(
            [
                self._append,
                self._generate,
                self._checkpoint,
                self._fork,
                self._restore,
                self._forget,
                self._create,
            ],
            [8, 4, 4, 2, 2, 2, 1],
        )[0]
        return await doing(stub)

    def _new(self, kind: str) -> str:
        self._made += 1
        return f"{self.name}-{kind}{self._made}"

    def _pick(self, names: dict[str, list[Told]]) -> str:
        return self.chance.choice(sorted(names))

    async def _create(self, stub: Any) -> None:
        name = self._new("s")
        self.underway = (name, None)
        await create(stub, name, chat_format=RAW)
        self.sessions[name] = []

    async def _append(self, stub: Any) -> None:
        name, words = self._pick(self.sessions), f"{self.chance.randrange(10**6)} "
        if len(self.sessions[name]) > 60:
            return
        entry = (Kind.APPEND.value, words)
        self.underway = (name, entry)
        await append(stub, raw(words), session_id=name)
        self.sessions[name].append(entry)

    async def _generate(self, stub: Any) -> None:
        name = self._pick(self.sessions)
        if not self.sessions[name] or len(self.sessions[name]) > 60:
            return
        self.underway = (name, (Kind.GENERATE.value, None))
        words, _, _ = await generate(stub, name, pb.GenerateRequest(sampling=SHORT).sampling)  # type: ignore[arg-type]
        self.sessions[name].append((Kind.GENERATE.value, words))

    async def _checkpoint(self, stub: Any) -> None:
        name, made = self._pick(self.sessions), self._new("c")
        self.underway = (made, None)
        await checkpoint(stub, name, made)
        self.checkpoints[made] = list(self.sessions[name])

    async def _fork(self, stub: Any) -> None:
        name, made = self._pick(self.sessions), self._new("f")
        self.underway = (made, None)
        await stub.ForkSession(pb.ForkSessionRequest(session_id=name, new_session_id=made))
        self.sessions[made] = list(self.sessions[name])

    async def _restore(self, stub: Any) -> None:
        if not self.checkpoints:
            return
        name, made = self._pick(self.checkpoints), self._new("r")
        self.underway = (made, None)
        reply = await restore_call(stub, made, name)
        assert reply.rebuild_reason == ""
        assert reply.usage.prefilled_tokens == 0
        self.sessions[made] = list(self.checkpoints[name])

    async def _forget(self, stub: Any) -> None:
        if len(self.sessions) > 4:
            name = self._pick(self.sessions)
            self.underway = (name, "deleted")
            await stub.DeleteSession(pb.DeleteSessionRequest(session_id=name))
            del self.sessions[name]
        elif len(self.checkpoints) > 4:
            name = self._pick(self.checkpoints)
            self.underway = (name, "deleted")
            await stub.DeleteCheckpoint(pb.DeleteCheckpointRequest(checkpoint_id=name))
            del self.checkpoints[name]

    async def compare(self, store: Store) -> None:
        """Nothing acknowledged is missing, doubled or out of order; what was underway is there or not."""
        name, what = self.underway or ("", None)
        for session, told in list(self.sessions.items()):
            found = await self._find(store.catalog.get_session, session)
            if found is None:
                assert (name, what) == (session, "deleted"), f"{session} is lost"
                del self.sessions[session]
                continue
            entries = await stored(store, found.head)
            extra = entries[len(told) :]
            assert entries[: len(told)] == told, f"{session} was altered"
            assert len(extra) <= (name == session), f"{session} has entries nobody was told of"
            if extra:
                assert what is not None
                assert extra[0][0] == what[0]
                assert what[1] in (None, extra[0][1])
            self.sessions[session] = entries
        for kept, told in list(self.checkpoints.items()):
            found = await self._find(store.catalog.get_checkpoint, kept)
            if found is None:
                assert (name, what) == (kept, "deleted"), f"{kept} is lost"
                del self.checkpoints[kept]
            else:
                assert await stored(store, found.head) == told
        self.underway = None

    async def _find(self, get: Any, name: str) -> Any:
        try:
            return await get(OWNER, name)
        except HoldfastError:
            return None


async def compare(writers: list[Writer], data_dir: Path) -> None:
    """Opens the dead server's store and compares it with what its clients were told."""
    store = await Store.open(data_dir)
    try:
        for writer in writers:
            await writer.compare(store)
    finally:
        await store.close()
