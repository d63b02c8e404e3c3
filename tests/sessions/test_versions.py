"""What a newer holdfast wrote is refused by name, never guessed at."""

from __future__ import annotations

import json

import pytest

from holdfast_server.sessions import journal, manifest
from holdfast_server.sessions.journal import Entry, Kind
from holdfast_server.sessions.manifest import Manifest
from holdfast_server.store.damage import JournalCorrupt, JournalTooNew, ManifestCorrupt


def of_version(data: bytes, version: int) -> bytes:
    return json.dumps(json.loads(data) | {"v": version, "novelty": True}).encode()


def test_a_newer_journal_entry_is_told_from_a_damaged_one() -> None:
    payload = journal.encode(Entry(Kind.APPEND, (), ()))
    with pytest.raises(JournalTooNew, match="newer holdfast"):
        journal.decode(of_version(payload, 2))
    with pytest.raises(JournalCorrupt) as caught:
        journal.decode(of_version(payload, 0))
    assert not isinstance(caught.value, JournalTooNew)


@pytest.mark.parametrize(("version", "words"), [(2, "newer holdfast"), (0, "add up")])
def test_a_manifest_of_another_version_is_refused(version: int, words: str) -> None:
    with pytest.raises(ManifestCorrupt, match=words):
        manifest.decode(of_version(manifest.encode(Manifest()), version))
