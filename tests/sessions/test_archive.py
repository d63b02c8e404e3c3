"""The file's frame: what goes in comes out, and nothing else does."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions.archive import Kind
from tests.archives import Records, join, reader, split

KINDS = st.sampled_from([kind for kind in Kind if kind is not Kind.DONE])
SMALL: Records = [(Kind.HEAD, b"about"), (Kind.PAGE, b""), (Kind.PAGE, b"\0" * 40)]


def read(data: bytes, records: Records, bound: int = 1000) -> None:
    """Reads a file that should hold these records."""
    file = reader(data)
    file.start()
    for kind, body in records:
        record = file.next(kind, bound)
        assert (record.kind, record.body, record.digest) == (kind, body, blake3(body).hexdigest())
        assert data[record.offset :].startswith(body)
    file.finish()


def refusal(data: bytes, records: Records = SMALL, bound: int = 1000) -> Reason:
    with pytest.raises(HoldfastError) as caught:
        read(data, records, bound)
    return caught.value.reason


@given(st.lists(st.tuples(KINDS, st.binary(max_size=300))))
def test_what_goes_in_comes_out(records: Records) -> None:
    data = join(records)
    assert split(data) == records
    read(data, records)


def test_every_truncation_and_every_flipped_bit_is_found() -> None:
    data = join(SMALL)
    for end in range(len(data)):
        assert refusal(data[:end]) is Reason.IMPORT_REFUSED
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refusal(bytes(flipped)) in (Reason.IMPORT_REFUSED, Reason.PAYLOAD_TOO_LARGE)
    assert refusal(data + b"\0") is Reason.IMPORT_REFUSED


def test_a_record_is_of_the_kind_and_size_that_is_due() -> None:
    data = join(SMALL)
    assert refusal(data, [(Kind.PAGE, b"about")]) is Reason.IMPORT_REFUSED
    assert refusal(data, bound=4) is Reason.PAYLOAD_TOO_LARGE
    assert refusal(data, SMALL[:2]) is Reason.IMPORT_REFUSED
    assert refusal(join([]), SMALL) is Reason.IMPORT_REFUSED


def test_a_record_that_is_skipped_is_verified_too() -> None:
    data = join([(Kind.PAGE, b"x" * (3 << 20))])
    file = reader(data)
    file.start()
    assert file.skip(Kind.PAGE) == blake3(b"x" * (3 << 20)).hexdigest()
    file.finish()
    damaged = reader(data.replace(b"x" * 100, b"x" * 99 + b"y", 1))
    damaged.start()
    with pytest.raises(HoldfastError):
        damaged.skip(Kind.PAGE)
