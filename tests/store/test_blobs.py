"""What every blob store promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast_server.store.blobs import BlobStore
from holdfast_server.store.damage import BlobMissing
from tests.store.helpers import digest

HOSTILE = [
    "",
    "a",
    "../" + "a" * 61,
    "/" + "a" * 63,
    "a" * 63,
    "a" * 65,
    "A" * 64,
    "a" * 63 + "\n",
    "a" * 64 + "\n",
    "a" * 63 + "\0",
    "a" * 31 + "/" + "a" * 32,
    "٣" * 64,
]


def test_what_was_put_comes_back(blobs: BlobStore) -> None:
    assert blobs.put(digest(1), b"content")
    assert blobs.get(digest(1)) == b"content"
    assert blobs.size(digest(1)) == 7


def test_empty_and_large_blobs(blobs: BlobStore) -> None:
    large = bytes(range(256)) * 20_000
    assert blobs.put(digest(1), b"")
    assert blobs.put(digest(2), large)
    assert (blobs.get(digest(1)), blobs.size(digest(1))) == (b"", 0)
    assert blobs.get(digest(2)) == large
    assert not blobs.put(digest(2), large)


def test_a_second_put_is_not_new(blobs: BlobStore) -> None:
    assert blobs.put(digest(1), b"content")
    assert not blobs.put(digest(1), b"content")


@pytest.mark.parametrize("damage", [b"", b"conten", b"content+", b"cOntent"])
def test_a_put_repairs_what_is_damaged(blobs: BlobStore, damage: bytes) -> None:
    blobs.put(digest(1), damage)
    assert blobs.put(digest(1), b"content")
    assert blobs.get(digest(1)) == b"content"


def test_absent_blobs_are_missing(blobs: BlobStore) -> None:
    with pytest.raises(BlobMissing):
        blobs.get(digest(1))
    with pytest.raises(BlobMissing):
        blobs.size(digest(1))
    assert not blobs.delete(digest(1))


def test_deleted_blobs_are_gone(blobs: BlobStore) -> None:
    blobs.put(digest(1), b"content")
    assert blobs.delete(digest(1))
    assert list(blobs.names()) == []
    with pytest.raises(BlobMissing):
        blobs.get(digest(1))
    assert blobs.put(digest(1), b"content")


def test_names_lists_every_blob_once(blobs: BlobStore) -> None:
    names = [f"{number:02x}" + "0" * 62 for number in range(256)] + [digest(1), digest(2)]
    for name in names:
        blobs.put(name, b"x")
    assert sorted(blobs.names()) == sorted(names)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_64_hex_digits_and_nothing_else(blobs: BlobStore, name: str) -> None:
    for operation in (blobs.get, blobs.size, blobs.delete, lambda name: blobs.put(name, b"x")):
        with pytest.raises(ValueError, match="64 lower-case hex digits"):
            operation(name)
    assert list(blobs.names()) == []


def test_concurrent_puts_of_one_name_leave_it_whole(blobs: BlobStore) -> None:
    content = bytes(range(256)) * 4_000
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda _: blobs.put(digest(1), content), range(32)))
    assert any(new)
    assert blobs.get(digest(1)) == content
    assert list(blobs.names()) == [digest(1)]
