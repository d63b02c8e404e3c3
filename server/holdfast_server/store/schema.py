"""The catalog's tables, in SQL that SQLite and PostgreSQL both speak.

    store             one row: schema version, epoch, id
    owners            an owner's digest key
    entries           journal entries, a tree by `parent`
    entry_media       the media an entry refers to
    sessions          names for heads
    checkpoints       names for heads, with a manifest
    checkpoint_pages  the pages a manifest refers to, for counting references
    files             digests of model files
    loose_heads       entries that lost a name: where pruning begins
    loose_blobs       digests that lost a reference: what collection looks at

Numbers of entries and checkpoints are never used twice, so that a number held
across a deletion cannot come to mean something else.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite numbers rows by itself only for a column that says INTEGER.
_RowNumber = BigInteger().with_variant(Integer(), "sqlite")

store = Table(
    "store",
    metadata,
    Column("schema_version", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("store_id", String(32), nullable=False),
)

owners = Table(
    "owners",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("digest_key", LargeBinary(32), nullable=False),
)

entries = Table(
    "entries",
    metadata,
    Column("id", _RowNumber, primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("parent", _RowNumber, ForeignKey("entries.id"), index=True),
    Column("revision", Integer, nullable=False),
    Column("chain", LargeBinary(32), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

entry_media = Table(
    "entry_media",
    metadata,
    Column("entry", _RowNumber, ForeignKey("entries.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True, index=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("session_id", String(63), primary_key=True),
    Column("head", _RowNumber, ForeignKey("entries.id"), index=True),
    Column("revision", Integer, nullable=False),
    Column("token_count", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("settings", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("ttl", BigInteger),
    Column("expires", BigInteger, index=True),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("row", _RowNumber, primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("checkpoint_id", String(63), nullable=False),
    Column("session_id", String(63), nullable=False),
    Column("head", _RowNumber, ForeignKey("entries.id"), index=True),
    Column("revision", Integer, nullable=False),
    Column("token_count", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("labels", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("compatibility_key", Text, nullable=False),
    Column("page_count", BigInteger, nullable=False),
    Column("raw_bytes", BigInteger, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("settings", Text, nullable=False),
    Column("expires", BigInteger, index=True),
    Column("pinned", Boolean, nullable=False),
    Column("automatic", Boolean, nullable=False),
    Column("manifest_digest", String(64), nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    UniqueConstraint("owner", "checkpoint_id"),
    Index("checkpoints_of_session", "owner", "session_id", "checkpoint_id"),
    Index("checkpoints_to_drop", "automatic", "pinned", "row"),
    sqlite_autoincrement=True,
)

checkpoint_pages = Table(
    "checkpoint_pages",
    metadata,
    Column("checkpoint", _RowNumber, ForeignKey("checkpoints.row", ondelete="CASCADE"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("prefix", String(64), index=True),  # names what a session holds up to the end of the page
)

files = Table(
    "files",
    metadata,
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("inode", String(20), nullable=False),  # some file systems use all 64 bits
    Column("digest", Text, nullable=False),
)

loose_heads = Table(
    "loose_heads",
    metadata,
    Column("entry", _RowNumber, ForeignKey("entries.id", ondelete="CASCADE"), primary_key=True),
)

loose_blobs = Table("loose_blobs", metadata, Column("digest", String(64), primary_key=True))
