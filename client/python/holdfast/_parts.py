"""What can be appended: text, pictures, and chunks that say who speaks."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from holdfast import _convert
from holdfast._types import Role
from holdfast.v1 import chunk_pb2

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})


@runtime_checkable
class PictureObject(Protocol):
    """A Pillow picture, without importing Pillow."""

    @property
    def mode(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def convert(self, mode: str) -> Any: ...
    def getexif(self) -> Any: ...
    def save(self, fp: Any, **params: Any) -> Any: ...


Picture: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str] | PictureObject
"""The bytes of a picture's file, the path of one, or a Pillow picture."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Chunk:
    """One piece of a conversation: either `text` or `image`.

    `role` None takes the role that `append` is given. `parse_special` reads
    special tokens such as "<|im_start|>" in the text as control tokens (raw
    sessions only). Files are read when the chunk is appended, not before.
    """

    text: str | None = None
    image: Picture | None = None
    mime_type: str = ""
    role: str | None = None
    parse_special: bool = False

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise TypeError("a chunk holds either text or an image")

    def __repr__(self) -> str:
        role = f"{self.role}: " if self.role else ""
        if self.image is None:
            return f"<holdfast.Chunk {role}{self.text!r}>"
        return f"<holdfast.Chunk {role}{_describe(self.image)}>"


Part: TypeAlias = str | Picture | Chunk
"""What `append` takes: text, a picture in any form, or a chunk. A `str` is always text, never a path."""


def text(content: str, *, role: str | None = None, parse_special: bool = False) -> Chunk:
    """Text; with `parse_special`, special tokens in it are control tokens (raw sessions only)."""
    return Chunk(text=content, role=role, parse_special=parse_special)


def image(picture: Picture, *, role: str | None = None, mime_type: str = "") -> Chunk:
    """A picture; a `mime_type` that does not agree with the data is refused by the server."""
    return Chunk(image=picture, role=role, mime_type=mime_type)


def system(part: str | Picture) -> Chunk:
    """Instructions that hold for the whole conversation."""
    return _spoken(part, Role.SYSTEM)


def user(part: str | Picture) -> Chunk:
    """What the model answers."""
    return _spoken(part, Role.USER)


def assistant(part: str | Picture) -> Chunk:
    """Words put into the model's mouth."""
    return _spoken(part, Role.ASSISTANT)


def tool(part: str | Picture) -> Chunk:
    """The result of a tool."""
    return _spoken(part, Role.TOOL)


def _spoken(part: str | Picture, role: Role) -> Chunk:
    return text(part, role=role) if isinstance(part, str) else image(part, role=role)


def to_pb(parts: tuple[Part, ...], role: str | None) -> list[chunk_pb2.Chunk]:
    """Messages for parts; reads files and encodes pictures, so call it off the event loop.

    Raises TypeError for a part that is none, ValueError for an unknown role
    and OSError for a file that cannot be read.
    """
    return [_chunk_to_pb(_chunk(part), role) for part in parts]


def _chunk(part: Part) -> Chunk:
    if isinstance(part, Chunk):
        return part
    return Chunk(text=part) if isinstance(part, str) else Chunk(image=part)


def _chunk_to_pb(chunk: Chunk, role: str | None) -> chunk_pb2.Chunk:
    pb = chunk_pb2.Chunk(
        role=_convert.role_to_pb(chunk.role if chunk.role is not None else role),
        parse_special=chunk.parse_special,
    )
    if chunk.image is None:
        pb.text = chunk.text or ""
    else:
        pb.image.CopyFrom(chunk_pb2.Media(data=_file_bytes(chunk.image), mime_type=chunk.mime_type))
    return pb


def _file_bytes(picture: Picture) -> bytes:
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, os.PathLike):
        return Path(picture).read_bytes()
    if isinstance(picture, PictureObject):
        return _png(picture)
    raise TypeError(
        f"cannot append {type(picture).__name__}: text, a picture or a holdfast.Chunk is expected"
    )


def _png(picture: PictureObject) -> bytes:
    """Lossless; EXIF goes along because it may hold the rotation."""
    file = io.BytesIO()
    drawn = picture if picture.mode in _PNG_MODES else picture.convert("RGB")
    drawn.save(file, format="PNG", exif=picture.getexif())
    return file.getvalue()


def _describe(picture: Picture) -> str:
    if isinstance(picture, bytes | bytearray | memoryview):
        return f"picture, {len(picture):,} bytes"
    if isinstance(picture, os.PathLike):
        return f"picture {os.fspath(picture)}"
    return f"picture, {picture.size[0]} x {picture.size[1]}"
