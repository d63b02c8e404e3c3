"""Picture files to pixels: an allow-list of formats, bounds before decoding, upright, RGB."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from holdfast_server.errors import HoldfastError, Reason

FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE = 2
MAX_SIDE = 16_384
MAX_RATIO = 100
"""Long side over short side; projectors with dynamic resolution misbehave beyond."""

# Bounds are checked below, against the header, before anything is decoded. Pillow's own
# limit is a process-wide warning, which cannot be turned into an answer safely.
Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """The upright picture, RGB, shape [height, width, 3]. Any thread.

    Raises HoldfastError: UNSUPPORTED_MEDIA, MEDIA_UNREADABLE or PAYLOAD_TOO_LARGE.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check(picture, max_pixels)
            upright = ImageOps.exif_transpose(picture)
            return np.asarray(_flatten(upright), np.uint8)
    except UnidentifiedImageError as error:
        raise HoldfastError(
            Reason.UNSUPPORTED_MEDIA, f"the data is not a picture; send one of {', '.join(FORMATS)}"
        ) from error
    # Decoders raise whatever they please at damaged files; their texts may hold addresses.
    except (OSError, ValueError, SyntaxError, IndexError, TypeError, EOFError, MemoryError) as error:
        raise HoldfastError(
            Reason.MEDIA_UNREADABLE, "the picture is damaged or truncated; send the whole file"
        ) from error


def mime_type(data: bytes) -> str:
    """The type that the first bytes show, empty for none that is supported."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return ""


def _check(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    if getattr(picture, "is_animated", False):
        raise HoldfastError(Reason.UNSUPPORTED_MEDIA, "the picture is animated; send a single frame")
    if long > MAX_SIDE or width * height > max_pixels:
        raise HoldfastError(
            Reason.PAYLOAD_TOO_LARGE,
            f"the picture is {width}x{height} pixels; at most {MAX_SIDE} a side and {max_pixels} in all",
        )
    if short < MIN_SIDE or long > short * MAX_RATIO:
        raise HoldfastError(
            Reason.UNSUPPORTED_MEDIA,
            f"the picture is {width}x{height} pixels; at least {MIN_SIDE} a side and a ratio of at most "
            f"{MAX_RATIO}:1",
        )


def _flatten(picture: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white; 16-bit grey is scaled, not clipped."""
    if picture.mode.startswith("I"):
        grey = np.asarray(picture, np.float32) / 257.0
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    coloured = picture.convert("RGBA")
    white = Image.new("RGBA", coloured.size, "white")
    return Image.alpha_composite(white, coloured).convert("RGB")
