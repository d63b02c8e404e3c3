"""The catalog: journals, sessions and checkpoints, as the rest of the server sees them.

Journal entries are immutable and form a tree by their parent links. A session
and a checkpoint are each a name for one entry, their head; forking, restoring
and rolling back set a head and copy nothing. A head of None is the empty
journal; the revision is the number of entries from the root to the head.

Everything belongs to an owner, and no method shows one owner what is
another's: it is absent, exactly as if it had never been. Payloads, settings
and manifests are opaque here. Times are nanoseconds since the epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal entry, verified against its chain digest."""

    entry_id: int
    parent: int | None
    revision: int  # 1 for the root
    payload: bytes
    chain: bytes  # 32 bytes: keyed BLAKE3 of the parent's chain and the payload


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as the catalog keeps it."""

    owner: str
    session_id: str
    head: int | None
    revision: int
    token_count: int
    position: int
    settings: str  # the sessions room's own JSON
    labels: Mapping[str, str]
    model: str
    created: int
    updated: int
    ttl: int | None = None  # nanoseconds after its last use
    expires: int | None = None  # None is never


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A checkpoint without its manifest, which `Catalog.manifest` loads."""

    owner: str
    checkpoint_id: str
    session_id: str  # the session it was taken of, which may be gone
    head: int | None
    revision: int
    token_count: int
    position: int
    labels: Mapping[str, str]
    model: str
    compatibility_key: str
    page_count: int
    raw_bytes: int
    stored_bytes: int
    created: int
    settings: str = "{}"  # the sessions room's own JSON, as of the session
    expires: int | None = None  # None is never, and so is any time while it is pinned
    pinned: bool = False  # neither expires nor makes room
    automatic: bool = False  # taken by the server itself, which may drop it to make room
    row: int = 0  # set by the catalog; tells a checkpoint from a later one of the same id


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """Stored pages that hold the beginning of a session."""

    checkpoint: CheckpointRecord
    index: int  # which of the prefixes asked for it is
    pages: int  # the checkpoint's first pages hold it


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What identifies an unchanged file, so that its digest need not be computed again."""

    path: str
    size: int
    mtime_ns: int
    inode: int


class Cost(IntEnum):
    """What a defect of the store costs; the number is the exit status of `holdfast fsck`."""

    SPACE = 0  # something nobody needs is kept
    TIME = 3  # state has to be computed again
    DATA = 4  # what somebody said, or a picture, is lost


@dataclass(frozen=True, slots=True)
class Problem:
    """One defect of the store."""

    cost: Cost
    text: str  # one line, with the ids of the sessions and checkpoints that suffer


@dataclass(frozen=True, slots=True)
class Reference:
    """A blob that a checkpoint or an entry refers to."""

    digest: str
    owner: str
    media: bool  # else a page


@dataclass(frozen=True, slots=True)
class Checked:
    """One slice of a check."""

    problems: tuple[Problem, ...]
    place: tuple[int, int] | None  # where the next slice begins; None is the end


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """One slice of a collection."""

    digests: tuple[str, ...]  # pages and media that nothing refers to any more
    more: bool  # whether another slice has work to do


class Catalog(ABC):
    """Durable truth about owners, sessions, journals and checkpoints.

    Thread: every method is called on the event loop and does its work on the
    catalog's own thread, in the order of the calls. A cancelled caller does
    not undo or interrupt an operation that is queued: it runs to its end.

    Mutation: each method is one transaction, durable when it returns, and
    refused as a whole when it raises.

    Errors: besides those named below every method may raise `HoldfastError`
    with STORE_FULL or INTERNAL, and every mutation LEASE_LOST, once another
    process has opened the store.
    """

    @property
    @abstractmethod
    def store_id(self) -> str:
        """Random name of this store, fixed when it was made."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """How many times the store has been opened: the fencing token of every write."""

    @abstractmethod
    async def owner_key(self, owner: str) -> bytes:
        """The owner's 32-byte digest key, made at first use."""

    # Sessions and journals

    @abstractmethod
    async def create_session(self, record: SessionRecord, *, limit: int | None = None) -> None:
        """Add a session, empty or at an existing head.

        `limit` bounds the number of sessions of all owners.
        Errors: SESSION_EXISTS, SESSION_LIMIT, CHECKPOINT_NOT_FOUND (the head is
        gone, since the checkpoint it came from was deleted meanwhile).
        """

    @abstractmethod
    async def get_session(self, owner: str, session_id: str) -> SessionRecord:
        """Errors: SESSION_NOT_FOUND."""

    @abstractmethod
    async def list_sessions(self, owner: str, *, after_id: str = "", limit: int = 100) -> list[SessionRecord]:
        """At most `limit` sessions with ids greater than `after_id`, in the byte order of their ids."""

    @abstractmethod
    async def delete_session(self, owner: str, session_id: str) -> bool:
        """Remove the name; False when there was none. `unreferenced` prunes its entries later."""

    @abstractmethod
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
        """Add one entry after the session's head and make it the head.

        `media` are the digests the payload refers to; `token_count` and
        `position` are the session's new totals.
        Errors: SESSION_NOT_FOUND; STALE_REVISION, with `current_revision` in
        its metadata, when `expected_revision` is not the session's.
        """

    @abstractmethod
    async def journal(self, owner: str, head: int | None) -> list[Entry]:
        """The entries from the root to `head`. Raises `JournalCorrupt`."""

    @abstractmethod
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
        """Set the session's head, and with it the revision: a rollback.

        Errors: SESSION_NOT_FOUND; CHECKPOINT_NOT_FOUND when the head is gone.
        """

    @abstractmethod
    async def update_session(
        self,
        owner: str,
        session_id: str,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: int | None = None,
        now: int,
    ) -> SessionRecord:
        """Change what is not None; a `ttl` counts from `now`, and 0 is for ever.

        Errors: SESSION_NOT_FOUND.
        """

    @abstractmethod
    async def expired_sessions(self, now: int, *, limit: int = 100) -> list[SessionRecord]:
        """Sessions of all owners whose time is over, those that expired first in front."""

    # Checkpoints

    @abstractmethod
    async def create_checkpoint(
        self,
        record: CheckpointRecord,
        *,
        manifest: bytes,
        pages: Sequence[str],
        prefixes: Sequence[str] = (),
    ) -> CheckpointRecord:
        """Add a checkpoint; `pages` are the digests it refers to, in order.

        `prefixes` names, for its first pages, all that a session holds up to
        the end of the page; `find_prefix` looks them up.
        Call it inside `Store.writing()`, entered before the first page was put.
        Errors: CHECKPOINT_EXISTS; SESSION_NOT_FOUND when the head is gone,
        since its session was deleted or rolled back meanwhile.
        """

    @abstractmethod
    async def import_checkpoint(
        self,
        record: CheckpointRecord,
        *,
        journal: Sequence[tuple[bytes, Sequence[str]]],
        manifest: bytes,
        pages: Sequence[str],
    ) -> CheckpointRecord:
        """Add a checkpoint together with a journal of its own: payloads and the media each refers to.

        The record's head and revision are set here. No session is made, and
        nobody's prefix is found in its pages, which came from outside.
        Call it inside `Store.writing()`, entered before the first put.
        Errors: CHECKPOINT_EXISTS.
        """

    @abstractmethod
    async def get_checkpoint(self, owner: str, checkpoint_id: str) -> CheckpointRecord:
        """Errors: CHECKPOINT_NOT_FOUND."""

    @abstractmethod
    async def manifest(self, record: CheckpointRecord) -> bytes:
        """The manifest of a record this catalog returned.

        Raises `ManifestCorrupt`. Errors: CHECKPOINT_NOT_FOUND, also when another
        checkpoint has taken the id since.
        """

    @abstractmethod
    async def list_checkpoints(
        self,
        owner: str,
        *,
        session_id: str = "",
        after_id: str = "",
        limit: int = 100,
        automatic: bool = True,
    ) -> list[CheckpointRecord]:
        """At most `limit` checkpoints after `after_id` in the byte order of their ids.

        A `session_id` keeps only those taken of that session; without
        `automatic`, those that the server took by itself are left out.
        """

    @abstractmethod
    async def delete_checkpoint(self, owner: str, checkpoint_id: str) -> bool:
        """Remove a checkpoint; False when there was none."""

    @abstractmethod
    async def update_checkpoint(
        self,
        owner: str,
        checkpoint_id: str,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: int | None = None,
        pinned: bool | None = None,
    ) -> CheckpointRecord:
        """Change what is not None; a `ttl` counts from its creation, and 0 is for ever.

        Errors: CHECKPOINT_NOT_FOUND.
        """

    @abstractmethod
    async def drop_expired(self, now: int, *, limit: int = 100) -> int:
        """Remove checkpoints of all owners whose time is over, never pinned ones: how many."""

    @abstractmethod
    async def trim_automatic(self, owner: str, session_id: str, keep: int) -> int:
        """Remove a session's automatic checkpoints but the newest `keep` and pinned ones: how many."""

    @abstractmethod
    async def drop_automatic(self, *, limit: int = 16) -> int:
        """Remove the oldest checkpoints that the server itself took, never pinned ones: how many."""

    @abstractmethod
    async def find_prefix(
        self, owner: str, prefixes: Sequence[str], *, compatibility_key: str
    ) -> PrefixMatch | None:
        """The last of `prefixes` (shortest first) that pages of a checkpoint of this key hold."""

    # Digests of model files

    @abstractmethod
    async def file_digest(self, stamp: FileStamp) -> str | None:
        """The digest remembered for exactly this stamp."""

    @abstractmethod
    async def remember_file_digest(self, stamp: FileStamp, digest: str) -> None:
        """Remember it, in place of what was known about the path."""

    # Collection; `Store.collect` is the caller

    @abstractmethod
    async def unreferenced(self, *, limit: int = 256) -> Unreferenced:
        """Prune one slice of what deletions and rollbacks left behind.

        Removes at most `limit` entries that no head reaches, and returns at
        most `limit` digests that lost their last reference, once each: a
        caller that dies before deleting them leaves orphans for `referenced`
        to find.
        """

    @abstractmethod
    async def referenced(self, digests: Collection[str]) -> set[str]:
        """Those of at most 500 digests that a checkpoint or an entry refers to."""

    @abstractmethod
    async def check(self, place: tuple[int, int] = (0, 0), *, limit: int = 500) -> Checked:
        """Look at one slice of the catalog: digests, links, counts and notes for collection."""

    @abstractmethod
    async def references(self, after: str = "", *, limit: int = 500) -> list[Reference]:
        """Blobs referred to whose digests come after `after`, in their order, each once."""

    @abstractmethod
    async def holders(self, reference: Reference) -> str:
        """The sessions and checkpoints that need a blob, for people to read."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what is queued and close. Idempotent; no method may be called after it."""
