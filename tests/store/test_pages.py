"""The page container: exact round trips, and no damage that goes unseen."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from holdfast_server.store.damage import PageCorrupt
from holdfast_server.store.digest import keyed_digest
from holdfast_server.store.pages import HEADER, HEADER_BYTES, Codec, PageRef, decode, encode

KEY = bytes(range(32))
LARGE = 1 << 20
COMPRESSIBLE = b"page of rows " * 20
INCOMPRESSIBLE = bytes((n * 197 + (n * n >> 3)) & 0xFF for n in range(64))


@given(st.binary(max_size=2_000), st.integers(1, 20))
def test_round_trip(content: bytes, times: int) -> None:
    page = encode(content * times, KEY)
    assert decode(page.data, page.ref, max_raw_bytes=LARGE, digest_key=KEY) == content * times
    assert page.ref.digest == keyed_digest(KEY, content * times)
    assert (page.ref.raw_bytes, page.ref.stored_bytes) == (len(content) * times, len(page.data))
    assert len(page.data) <= len(content) * times + HEADER_BYTES


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_contiguous_buffer_is_the_same_page(kind: type) -> None:
    assert encode(kind(COMPRESSIBLE), KEY) == encode(COMPRESSIBLE, KEY)


def test_codec_is_raw_unless_lz4_pays() -> None:
    assert encode(COMPRESSIBLE, KEY).data[5] == Codec.LZ4
    assert encode(os.urandom(10_000), KEY).data[5] == Codec.RAW
    # LZ4 would win a little here, less than a decompression is worth.
    assert encode(os.urandom(10_000) + bytes(2_000), KEY).data[5] == Codec.RAW
    # A piece of a large page decides whether the whole is tried.
    assert encode(bytes(100_000) + os.urandom(100_000) + bytes(100_000), KEY).data[5] == Codec.RAW
    assert encode(bytes(300_000), KEY).data[5] == Codec.LZ4


def test_the_key_decides_the_name() -> None:
    assert encode(b"x", KEY).ref.digest != encode(b"x", bytes(32)).ref.digest


@pytest.mark.parametrize("content", [COMPRESSIBLE, INCOMPRESSIBLE, b""])
def test_every_flipped_bit_is_found(content: bytes) -> None:
    page = encode(content, KEY)
    for bit in range(8 * len(page.data)):
        damaged = bytearray(page.data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PageCorrupt):
            decode(bytes(damaged), page.ref, max_raw_bytes=LARGE)


@pytest.mark.parametrize("content", [COMPRESSIBLE, INCOMPRESSIBLE])
def test_every_truncation_and_extension_is_found(content: bytes) -> None:
    page = encode(content, KEY)
    for damaged in [page.data[:length] for length in range(len(page.data))] + [page.data + b"\0"]:
        with pytest.raises(PageCorrupt):
            decode(damaged, page.ref, max_raw_bytes=LARGE)


def test_another_sound_page_of_the_same_size_is_refused() -> None:
    page, other = encode(b"a" * 100, KEY), encode(b"b" * 100, KEY)
    with pytest.raises(PageCorrupt, match="checksum"):
        decode(other.data, page.ref, max_raw_bytes=LARGE)


def test_a_forged_checksum_falls_to_the_keyed_digest() -> None:
    page, other = encode(b"a" * 100, KEY), encode(b"b" * 100, KEY)
    forged = replace(page.ref, checksum=other.ref.checksum)
    assert decode(other.data, forged, max_raw_bytes=LARGE) == b"b" * 100
    with pytest.raises(PageCorrupt, match="digest"):
        decode(other.data, forged, max_raw_bytes=LARGE, digest_key=KEY)


def sealed(codec: int, raw_bytes: int, body: bytes, *, version: int = 1, zero: int = 0) -> bytes:
    """A container whose checksums are right, whatever it declares."""
    fields = HEADER.pack(b"HFPG", version, codec, zero, raw_bytes, len(body), xxh3_64_intdigest(body))
    return fields + xxh3_64_intdigest(fields).to_bytes(8, "little") + body


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("declared", [101, 1 << 31, 1 << 40, (1 << 64) - 1])
def test_a_bomb_is_refused_before_anything_is_allocated(codec: Codec, declared: int) -> None:
    ref = PageRef("0" * 64, "0" * 16, declared, 99)
    with pytest.raises(PageCorrupt, match="allowed"):
        decode(sealed(codec, declared, b"\x1f\0"), ref, max_raw_bytes=100)


@pytest.mark.parametrize("declared", [99, 101])
def test_a_body_of_another_size_than_declared_is_refused(declared: int) -> None:
    page = encode(bytes(100), KEY)
    lying = sealed(Codec.LZ4, declared, page.data[HEADER_BYTES:])
    with pytest.raises(PageCorrupt):
        decode(lying, replace(page.ref, raw_bytes=declared), max_raw_bytes=LARGE)
    with pytest.raises(PageCorrupt):
        decode(
            sealed(Codec.RAW, declared, bytes(100)),
            replace(page.ref, raw_bytes=declared),
            max_raw_bytes=LARGE,
        )


@pytest.mark.parametrize("fault", [{"version": 2}, {"zero": 1}, {"codec": 7}])
def test_unknown_versions_codecs_and_flags_are_refused(fault: dict[str, int]) -> None:
    page = encode(b"abc", KEY)
    data = sealed(**{"codec": Codec.RAW, "raw_bytes": 3, "body": b"abc"} | fault)  # type: ignore[arg-type]
    with pytest.raises(PageCorrupt, match="version"):
        decode(data, page.ref, max_raw_bytes=LARGE)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_never_crash(data: bytes) -> None:
    ref = PageRef("0" * 64, "0" * 16, 10, len(data))
    with pytest.raises(PageCorrupt):
        decode(data, ref, max_raw_bytes=LARGE)


@given(st.binary(max_size=200), st.integers(0, 1_000))
def test_arbitrary_lz4_bodies_are_refused_and_never_crash(body: bytes, declared: int) -> None:
    ref = PageRef("0" * 64, "not a checksum", declared, 0)
    with pytest.raises(PageCorrupt):
        decode(sealed(Codec.LZ4, declared, body), ref, max_raw_bytes=LARGE)
