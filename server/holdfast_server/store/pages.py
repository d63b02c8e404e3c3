"""The container of one page: what lies in the blob store under the page's digest.

All integers are little-endian and unsigned.

    offset  bytes  field
         0      4  magic "HFPG"
         4      1  version, 1
         5      1  codec of the body: 0 raw, 1 LZ4 block
         6      2  zero
         8      8  bytes of the content
        16      8  bytes of the body
        24      8  XXH3-64 of the body
        32      8  XXH3-64 of the 32 bytes before
        40      -  body, to the end of the file

The header finds every damaged bit of the file by itself; the reference (out of
a verified manifest) then says whether it is the right page: size and XXH3-64
of the content. These are checksums against accidents. Against a forger only
the keyed digest helps: pages from outside must be decoded with `digest_key`.

Pure functions, safe on any thread; hashing and LZ4 release the GIL.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import lz4.block
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from holdfast_server.store.damage import PageCorrupt
from holdfast_server.store.digest import Bytes, keyed_digest

MAGIC = b"HFPG"
VERSION = 1
WORTHWHILE = 0.75  # LZ4 is kept when the body shrinks to this share or less: unpacking costs time too
_SAMPLE_BYTES = 1 << 16  # LZ4 is tried on a piece of this size first; KV in f16 rarely shrinks
_LZ4_MAX_BYTES = 0x7E000000  # what one LZ4 block can hold
HEADER = struct.Struct("<4sBBHQQQ")
_LZ4_MOST = 256  # an LZ4 block grows less than that when it is unpacked
LZ4_MAX_INPUT = 0x7E000000  # bytes, of lz4's block format
HEADER_BYTES = HEADER.size + 8


class Codec(IntEnum):
    """How a body encodes its content."""

    RAW = 0
    LZ4 = 1


@dataclass(frozen=True, slots=True)
class PageRef:
    """What a manifest keeps of a page."""

    digest: str  # 64 hex digits: keyed BLAKE3 of the content, the blob's name
    checksum: str  # 16 hex digits: XXH3-64 of the content
    raw_bytes: int  # of the content
    stored_bytes: int  # of the container when it was written; another LZ4 may pack differently


@dataclass(frozen=True, slots=True)
class EncodedPage:
    """A page ready to be stored under its digest."""

    ref: PageRef
    data: bytes


def encode(content: Bytes, key: bytes) -> EncodedPage:
    """Name a page by the owner's 32-byte digest key, and pack it."""
    view = memoryview(content).cast("B")
    codec, body = _compress(view)
    checksum = xxh3_64_intdigest(body)
    fields = HEADER.pack(MAGIC, VERSION, codec, 0, view.nbytes, len(body), checksum)
    data = b"".join((fields, xxh3_64_intdigest(fields).to_bytes(8, "little"), body))
    content_checksum = f"{checksum:016x}" if codec is Codec.RAW else xxh3_64_hexdigest(view)
    ref = PageRef(keyed_digest(key, view), content_checksum, view.nbytes, len(data))
    return EncodedPage(ref, data)


def decode(
    data: bytes, ref: PageRef, *, max_raw_bytes: int, digest_key: bytes | None = None
) -> bytes | memoryview:
    """The content of `ref`, verified; at most `max_raw_bytes` are ever allocated for it.

    A view of `data` where that holds it as it is.

    With the owner's `digest_key` the keyed digest is verified too.
    Raises `PageCorrupt`.
    """
    codec, raw_bytes, body, checksum = _open(data)
    if raw_bytes != ref.raw_bytes:
        raise PageCorrupt("the page is of another size than its reference says")
    if raw_bytes > max_raw_bytes:
        raise PageCorrupt(f"the page declares {raw_bytes} bytes, more than the {max_raw_bytes} allowed")
    content = _decompress(codec, body, raw_bytes)
    found = f"{checksum:016x}" if codec is Codec.RAW else xxh3_64_hexdigest(content)
    if found != ref.checksum:
        raise PageCorrupt("the page's content does not match its checksum")
    if digest_key is not None and keyed_digest(digest_key, content) != ref.digest:
        raise PageCorrupt("the page's content does not match its digest")
    return content


def whole_size(head: bytes) -> int:
    """Bytes that the file of a page with this header must have. Raises `PageCorrupt`."""
    return HEADER_BYTES + _fields(head)[2]


def check(data: bytes, digest: str, key: bytes) -> None:
    """See that this is the page that an owner's digest names, without a reference. Raises `PageCorrupt`."""
    codec, raw_bytes, body, _ = _open(data)
    if raw_bytes > _LZ4_MOST * max(body.nbytes, 1):
        raise PageCorrupt("the page declares more bytes than its body can hold")
    if keyed_digest(key, _decompress(codec, body, raw_bytes)) != digest:
        raise PageCorrupt("the page's content does not match its digest")


def _compress(view: memoryview) -> tuple[Codec, Bytes]:
    if view.nbytes == 0 or view.nbytes > LZ4_MAX_INPUT:
        return Codec.RAW, view
    middle = max(0, view.nbytes - _SAMPLE_BYTES) // 2
    sample = view[middle : middle + _SAMPLE_BYTES]
    if len(lz4.block.compress(sample, store_size=False)) > WORTHWHILE * sample.nbytes:
        return Codec.RAW, view
    packed: bytes = lz4.block.compress(view, store_size=False)
    return (Codec.LZ4, packed) if len(packed) <= WORTHWHILE * view.nbytes else (Codec.RAW, view)


def _fields(data: bytes) -> tuple[Codec, int, int, int]:
    """Codec, bytes of the content and of the body, the body's checksum."""
    if len(data) < HEADER_BYTES:
        raise PageCorrupt("the page is cut short")
    fields = data[: HEADER.size]
    if xxh3_64_intdigest(fields).to_bytes(8, "little") != data[HEADER.size : HEADER_BYTES]:
        raise PageCorrupt("the page's header does not match its checksum")
    magic, version, codec, zero, raw_bytes, body_bytes, checksum = HEADER.unpack(fields)
    if magic == MAGIC and version > VERSION:
        raise PageCorrupt(f"the page has version {version}, of a newer holdfast than this server")
    if magic != MAGIC or version != VERSION or zero != 0 or codec not in list(Codec):
        raise PageCorrupt("not a page of a version this server reads")
    return Codec(codec), raw_bytes, body_bytes, checksum


def _open(data: bytes) -> tuple[Codec, int, memoryview, int]:
    """Codec, bytes of the content, the body, and its checksum, which is right."""
    codec, raw_bytes, body_bytes, checksum = _fields(data)
    body = memoryview(data)[HEADER_BYTES:]
    if body.nbytes != body_bytes or xxh3_64_intdigest(body) != checksum:
        raise PageCorrupt("the page's body does not match its checksum")
    return codec, raw_bytes, body, checksum


def _decompress(codec: Codec, body: memoryview, raw_bytes: int) -> bytes | memoryview:
    content: bytes | memoryview
    if codec is Codec.RAW:
        content = body
    else:
        try:
            content = lz4.block.decompress(body, uncompressed_size=raw_bytes)
        except (lz4.block.LZ4BlockError, ValueError, OverflowError) as error:
            raise PageCorrupt("the page's body cannot be decompressed") from error
    if len(content) != raw_bytes:
        raise PageCorrupt("the page's content is of another size than declared")
    return content
