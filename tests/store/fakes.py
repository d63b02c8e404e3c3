"""The store's two seams in memory. The conformance tests hold them to the real ones' word."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.store.blobs import BlobStore, check_blob_name
from holdfast_server.store.catalog import (
    Catalog,
    Checked,
    CheckpointRecord,
    Entry,
    FileStamp,
    PrefixMatch,
    Reference,
    SessionRecord,
    Unreferenced,
)
from holdfast_server.store.damage import BlobMissing, JournalCorrupt
from holdfast_server.store.digest import keyed_bytes


class MemoryBlobs(BlobStore):
    """Blobs in a dictionary."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> bool:
        known = self.held.get(check_blob_name(name)) == data
        self.held[name] = data
        return not known

    def get(self, name: str, *, limit: int | None = None) -> bytes:
        if check_blob_name(name) not in self.held:
            raise BlobMissing(f"blob {name} is missing")
        return self.held[name][:limit]

    def size(self, name: str) -> int:
        return len(self.get(name))

    def delete(self, name: str) -> bool:
        return self.held.pop(check_blob_name(name), None) is not None

    def names(self) -> Iterator[str]:
        yield from list(self.held)

    def close(self) -> None:
        pass


class MemoryCatalog(Catalog):
    """A catalog in dictionaries: every method is atomic because it never awaits."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self._entries: dict[int, tuple[str, Entry, tuple[str, ...]]] = {}
        self._sessions: dict[tuple[str, str], SessionRecord] = {}
        self._checkpoints: dict[tuple[str, str], tuple[CheckpointRecord, bytes, tuple[str, ...]]] = {}
        self._prefixes: dict[int, tuple[str, ...]] = {}
        self._files: dict[str, tuple[FileStamp, str]] = {}
        self._loose: list[str] = []
        self._numbers = 0

    @property
    def store_id(self) -> str:
        return "0" * 32

    @property
    def epoch(self) -> int:
        return 1

    async def owner_key(self, owner: str) -> bytes:
        return self._keys.setdefault(owner, secrets.token_bytes(32))

    async def create_session(self, record: SessionRecord, *, limit: int | None = None) -> None:
        key = (record.owner, record.session_id)
        if key in self._sessions:
            raise HoldfastError(Reason.SESSION_EXISTS, "exists")
        if limit is not None and len(self._sessions) >= limit:
            raise HoldfastError(Reason.SESSION_LIMIT, "limit")
        revision = self._revision(record.owner, record.head, Reason.CHECKPOINT_NOT_FOUND)
        self._sessions[key] = replace(record, revision=revision)

    async def get_session(self, owner: str, session_id: str) -> SessionRecord:
        if (owner, session_id) not in self._sessions:
            raise HoldfastError(Reason.SESSION_NOT_FOUND, "absent")
        return self._sessions[owner, session_id]

    async def list_sessions(self, owner: str, *, after_id: str = "", limit: int = 100) -> list[SessionRecord]:
        found = sorted(key for key in self._sessions if key[0] == owner and key[1] > after_id)
        return [self._sessions[key] for key in found[:limit]]

    async def delete_session(self, owner: str, session_id: str) -> bool:
        return self._sessions.pop((owner, session_id), None) is not None

    async def append(
        self,
        owner: str,
        session_id: str,
        *,
        expected_revision: int | None,
        payload: bytes,
        media: Sequence[str],
        token_count: int,
        position: int,
        updated: int,
    ) -> SessionRecord:
        record = await self.get_session(owner, session_id)
        if expected_revision not in (None, record.revision):
            current = {"current_revision": str(record.revision)}
            raise HoldfastError(Reason.STALE_REVISION, "stale", metadata=current)
        head = await self._add(owner, record.head, payload, media)
        return self._move(record, head, token_count, position, updated)

    async def journal(self, owner: str, head: int | None) -> list[Entry]:
        if head is not None and (head not in self._entries or self._entries[head][0] != owner):
            raise JournalCorrupt("missing")
        return list(self._path(head))[::-1]

    async def reset(
        self,
        owner: str,
        session_id: str,
        *,
        head: int | None,
        token_count: int,
        position: int,
        updated: int,
    ) -> SessionRecord:
        record = await self.get_session(owner, session_id)
        return self._move(record, head, token_count, position, updated)

    async def update_session(
        self,
        owner: str,
        session_id: str,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: int | None = None,
        now: int,
    ) -> SessionRecord:
        record = await self.get_session(owner, session_id)
        if labels is not None:
            record = replace(record, labels=labels)
        if ttl is not None:
            record = replace(record, ttl=ttl or None, expires=now + ttl if ttl else None)
        self._sessions[owner, session_id] = record
        return record

    async def expired_sessions(self, now: int, *, limit: int = 100) -> list[SessionRecord]:
        found = [(r.expires, r) for r in self._sessions.values() if r.expires and r.expires <= now]
        return [record for _, record in sorted(found, key=lambda pair: pair[0])][:limit]

    async def create_checkpoint(
        self,
        record: CheckpointRecord,
        *,
        manifest: bytes,
        pages: Sequence[str],
        prefixes: Sequence[str] = (),
    ) -> CheckpointRecord:
        key = (record.owner, record.checkpoint_id)
        if key in self._checkpoints:
            raise HoldfastError(Reason.CHECKPOINT_EXISTS, "exists")
        revision = self._revision(record.owner, record.head, Reason.SESSION_NOT_FOUND)
        record = replace(record, revision=revision, row=self._number())
        self._checkpoints[key] = (record, manifest, tuple(pages))
        self._prefixes[record.row] = tuple(prefixes)
        return record

    async def import_checkpoint(
        self,
        record: CheckpointRecord,
        *,
        journal: Sequence[tuple[bytes, Sequence[str]]],
        manifest: bytes,
        pages: Sequence[str],
    ) -> CheckpointRecord:
        if (record.owner, record.checkpoint_id) in self._checkpoints:
            raise HoldfastError(Reason.CHECKPOINT_EXISTS, "exists")
        head = None
        for payload, media in journal:
            head = await self._add(record.owner, head, payload, media)
        return await self.create_checkpoint(replace(record, head=head), manifest=manifest, pages=pages)

    async def get_checkpoint(self, owner: str, checkpoint_id: str) -> CheckpointRecord:
        if (owner, checkpoint_id) not in self._checkpoints:
            raise HoldfastError(Reason.CHECKPOINT_NOT_FOUND, "absent")
        return self._checkpoints[owner, checkpoint_id][0]

    async def manifest(self, record: CheckpointRecord) -> bytes:
        if (await self.get_checkpoint(record.owner, record.checkpoint_id)).row != record.row:
            raise HoldfastError(Reason.CHECKPOINT_NOT_FOUND, "another")
        return self._checkpoints[record.owner, record.checkpoint_id][1]

    async def list_checkpoints(
        self,
        owner: str,
        *,
        session_id: str = "",
        after_id: str = "",
        limit: int = 100,
        automatic: bool = True,
    ) -> list[CheckpointRecord]:
        mine = [record for record, _, _ in self._checkpoints.values() if record.owner == owner]
        mine = [r for r in mine if session_id in ("", r.session_id) and (automatic or not r.automatic)]
        found = [r for r in mine if r.checkpoint_id > after_id]
        return sorted(found, key=lambda record: record.checkpoint_id)[:limit]

    async def delete_checkpoint(self, owner: str, checkpoint_id: str) -> bool:
        found = self._checkpoints.pop((owner, checkpoint_id), None)
        self._loose += found[2] if found else ()
        return found is not None

    async def update_checkpoint(
        self,
        owner: str,
        checkpoint_id: str,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: int | None = None,
        pinned: bool | None = None,
    ) -> CheckpointRecord:
        record = await self.get_checkpoint(owner, checkpoint_id)
        if labels is not None:
            record = replace(record, labels=labels)
        if ttl is not None:
            record = replace(record, expires=record.created + ttl if ttl else None)
        if pinned is not None:
            record = replace(record, pinned=pinned)
        self._checkpoints[owner, checkpoint_id] = (record, *self._checkpoints[owner, checkpoint_id][1:])
        return record

    async def drop_expired(self, now: int, *, limit: int = 100) -> int:
        return await self._drop(lambda record: bool(record.expires and record.expires <= now), limit)

    async def trim_automatic(self, owner: str, session_id: str, keep: int) -> int:
        mine = [r for r, _, _ in self._checkpoints.values() if (r.owner, r.session_id) == (owner, session_id)]
        found = sorted((r for r in mine if r.automatic and not r.pinned), key=lambda record: -record.row)
        for record in found[keep:]:
            await self.delete_checkpoint(owner, record.checkpoint_id)
        return len(found[keep:])

    async def drop_automatic(self, *, limit: int = 16) -> int:
        return await self._drop(lambda record: record.automatic, limit)

    async def _drop(self, chosen: Callable[[CheckpointRecord], bool], limit: int) -> int:
        records = sorted((r for r, _, _ in self._checkpoints.values()), key=lambda record: record.row)
        dropped = [r for r in records if chosen(r) and not r.pinned][:limit]
        for record in dropped:
            await self.delete_checkpoint(record.owner, record.checkpoint_id)
        return len(dropped)

    async def find_prefix(
        self, owner: str, prefixes: Sequence[str], *, compatibility_key: str
    ) -> PrefixMatch | None:
        mine = [r for r, _, _ in self._checkpoints.values() if r.owner == owner]
        found = [
            PrefixMatch(record, prefixes.index(prefix), pages)
            for record in mine
            if record.compatibility_key == compatibility_key
            for pages, prefix in enumerate(self._prefixes[record.row], start=1)
            if prefix in prefixes
        ]
        return max(found, key=lambda match: (match.index, match.checkpoint.row), default=None)

    async def file_digest(self, stamp: FileStamp) -> str | None:
        known, digest = self._files.get(stamp.path, (None, ""))
        return digest if known == stamp else None

    async def remember_file_digest(self, stamp: FileStamp, digest: str) -> None:
        self._files[stamp.path] = (stamp, digest)

    async def unreferenced(self, *, limit: int = 256) -> Unreferenced:
        heads = [r.head for r in self._sessions.values()] + [r.head for r, _, _ in self._checkpoints.values()]
        reached = {entry.entry_id for head in heads for entry in self._path(head)}
        garbage = sorted(self._entries.keys() - reached, reverse=True)
        for number in garbage[:limit]:
            self._loose += self._entries.pop(number)[2]
        looked_at, self._loose = self._loose[:limit], self._loose[limit:]
        kept = await self.referenced(looked_at)
        dropped = tuple(dict.fromkeys(digest for digest in looked_at if digest not in kept))
        return Unreferenced(dropped, bool(self._loose) or len(garbage) > limit)

    async def referenced(self, digests: Collection[str]) -> set[str]:
        media = {digest for _, _, used in self._entries.values() for digest in used}
        pages = {digest for _, _, used in self._checkpoints.values() for digest in used}
        return set(digests) & (media | pages)

    async def check(self, place: tuple[int, int] = (0, 0), *, limit: int = 500) -> Checked:
        return Checked((), None)

    async def references(self, after: str = "", *, limit: int = 500) -> list[Reference]:
        media = {(d, owner, True) for owner, _, used in self._entries.values() for d in used}
        pages = {(d, r.owner, False) for r, _, used in self._checkpoints.values() for d in used}
        return [Reference(*found) for found in sorted(media | pages) if found[0] > after][:limit]

    async def holders(self, reference: Reference) -> str:
        return ""

    async def close(self) -> None:
        pass

    async def _add(self, owner: str, parent: int | None, payload: bytes, media: Sequence[str]) -> int:
        above = None if parent is None else self._entries[parent][1]
        chain = keyed_bytes(await self.owner_key(owner), above.chain if above else b"", payload)
        entry = Entry(self._number(), parent, above.revision + 1 if above else 1, payload, chain)
        self._entries[entry.entry_id] = (owner, entry, tuple(media))
        return entry.entry_id

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _path(self, head: int | None) -> Iterator[Entry]:
        while head is not None:
            entry = self._entries[head][1]
            yield entry
            head = entry.parent

    def _revision(self, owner: str, head: int | None, otherwise: Reason) -> int:
        if head is None:
            return 0
        if head not in self._entries or self._entries[head][0] != owner:
            raise HoldfastError(otherwise, "the head is gone")
        return self._entries[head][1].revision

    def _move(
        self, record: SessionRecord, head: int | None, token_count: int, position: int, updated: int
    ) -> SessionRecord:
        revision = self._revision(record.owner, head, Reason.CHECKPOINT_NOT_FOUND)
        moved = replace(record, head=head, revision=revision, updated=updated)
        moved = replace(moved, token_count=token_count, position=position)
        moved = replace(moved, expires=updated + record.ttl if record.ttl else None)
        self._sessions[record.owner, record.session_id] = moved
        return moved
