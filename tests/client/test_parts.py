"""Everything that can be appended, and what it becomes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

import holdfast
from holdfast import Chunk, Part
from holdfast._parts import to_pb
from holdfast.v1 import chunk_pb2


def one(part: Part, role: str | None = None) -> chunk_pb2.Chunk:
    (chunk,) = to_pb((part,), role)
    return chunk


def opened(chunk: chunk_pb2.Chunk) -> Image.Image:
    picture = Image.open(io.BytesIO(chunk.image.data))
    picture.load()
    return picture


def test_a_str_is_text_even_when_it_names_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    assert one(str(file)).text == str(file)


def test_an_empty_text_is_still_text() -> None:
    assert one("").WhichOneof("part") == "text"


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_bytes_are_a_picture_as_they_are(data: bytes | bytearray | memoryview) -> None:
    assert one(data).image == chunk_pb2.Media(data=b"abc")


def test_a_path_is_read_when_it_is_appended(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    chunk = holdfast.image(file)
    file.write_bytes(b"late")
    assert one(chunk).image.data == b"late"
    assert one(file).image.data == b"late"


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        one(tmp_path / "none.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F"])
def test_a_pillow_picture_of_any_mode_becomes_a_png(mode: str) -> None:
    chunk = one(Image.new(mode, (3, 2)))
    assert opened(chunk).format == "PNG"
    assert opened(chunk).size == (3, 2)


def test_a_pillow_picture_keeps_its_pixels_and_its_rotation() -> None:
    picture = Image.new("RGB", (2, 1))
    picture.putpixel((1, 0), (1, 2, 3))
    picture.getexif()[0x0112] = 6
    sent = opened(one(picture))
    assert sent.getpixel((1, 0)) == (1, 2, 3)
    assert sent.getexif()[0x0112] == 6


@pytest.mark.parametrize("part", [None, 3, ["a"], object()])
def test_what_is_no_part_is_a_type_error(part: object) -> None:
    with pytest.raises(TypeError, match=r"text|picture"):
        one(part)  # type: ignore[arg-type]


def test_helpers_name_the_speaker_and_win_over_the_role_of_the_append() -> None:
    helpers = (holdfast.system, holdfast.user, holdfast.assistant, holdfast.tool)
    roles = [one(helper("x"), role="user").role for helper in helpers]
    assert roles == [
        chunk_pb2.ROLE_SYSTEM,
        chunk_pb2.ROLE_USER,
        chunk_pb2.ROLE_ASSISTANT,
        chunk_pb2.ROLE_TOOL,
    ]
    assert one(holdfast.user(b"abc")).image.data == b"abc"
    assert one(holdfast.text("x"), role="tool").role == chunk_pb2.ROLE_TOOL
    assert one(holdfast.image(b"abc", mime_type="image/png")).image.mime_type == "image/png"


def test_a_chunk_is_either_text_or_picture() -> None:
    with pytest.raises(TypeError):
        Chunk()
    with pytest.raises(TypeError):
        Chunk(text="a", image=b"b")


def test_reprs_tell_and_do_not_flood(tmp_path: Path) -> None:
    assert repr(holdfast.system("Be brief.")) == "<holdfast.Chunk system: 'Be brief.'>"
    assert repr(holdfast.image(bytes(12_345))) == "<holdfast.Chunk picture, 12,345 bytes>"
    assert repr(holdfast.image(Path("a.png"))) == "<holdfast.Chunk picture a.png>"
    assert repr(holdfast.image(Image.new("L", (4, 3)))) == "<holdfast.Chunk picture, 4 x 3>"
