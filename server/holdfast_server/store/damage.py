"""What the store raises when stored bytes cannot be trusted.

    Damage
    ├── BlobMissing       a page or media file is gone
    ├── PageCorrupt       a page's bytes differ from what was written
    ├── MediaCorrupt      a media file's bytes differ from what was written
    ├── ManifestCorrupt   a checkpoint's manifest differs from what was written
    └── JournalCorrupt    a journal entry is missing, misplaced or altered
        └── JournalTooNew     a journal entry was written by a newer holdfast

    CatalogDamaged    the catalog's file cannot be opened as one: the server does not start

None of these reach a client as they are: the sessions room decides whether the
state is recomputed or the call is refused. Messages name digests and ids only,
never paths.
"""

from __future__ import annotations

from holdfast_server.errors import StartupError


class Damage(Exception):
    """Stored bytes are missing or not what was written."""


class BlobMissing(Damage):
    """A page or media file is gone."""


class PageCorrupt(Damage):
    """A page's bytes differ from what was written."""


class MediaCorrupt(Damage):
    """A media file's bytes differ from what was written."""


class ManifestCorrupt(Damage):
    """A checkpoint's manifest differs from what was written."""


class JournalCorrupt(Damage):
    """A journal entry is missing, misplaced or altered."""


class CatalogDamaged(StartupError):
    """The catalog's file is none, or SQLite finds it broken."""


class JournalTooNew(JournalCorrupt):
    """A journal entry was written by a newer holdfast."""
