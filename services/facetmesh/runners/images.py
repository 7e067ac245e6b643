"""Image files in, pixels out, whatever a tenant sends: JPEG, PNG and WebP.

A file's header is checked before any of its pixels are touched, so that a small
file that claims to be a huge image costs nothing. For programs in a runner's
child only: decoders are native code.

Pixels are RGB, uint8, of shape (height, width, 3), turned as the file's EXIF
orientation says. Grey, palette, CMYK and 16-bit images are converted, and
transparency is laid over white. Of an animation it is the first frame.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from facetmesh.kit.errors import InvalidArgument
from facetmesh.runners import headers
from facetmesh.runners.stopwatch import part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

# The limits are ours to check, before anything is decoded; Pillow would only warn.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION = 0x0112
_TRANSPOSING = range(5, 9)
_PLAIN_COLOURS = frozenset({"YCbCr", "Gray"})
_FAST_PARTS = (8, 4, 2)
"""libjpeg-turbo has vector code to decode an eighth, a quarter, a half and the whole: three eighths of a photo take
longer than a half (1.63 and 1.44 ms), and five eighths longer than all of it (2.57 and 1.85)."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may be."""

    file_bytes: int = 20_000_000
    """Size of the file."""
    pixels: int = 50_000_000
    """Width times height."""


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True)
class Scaled:
    """An image that may have been made smaller while it was decoded."""

    pixels: Pixels
    """The pixels, at some scale."""
    width: int
    """Columns of the original, after its orientation was applied."""
    height: int
    """Rows of the original, after its orientation was applied."""


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Pixels:
    """Returns an image file's pixels.

    Args:
        data: A JPEG, PNG or WebP file.
        limits: What it may be.

    Raises:
        InvalidArgument: IMAGE_NOT_RECOGNIZED: it is none of these;
            IMAGE_TOO_LARGE: beyond the limits; IMAGE_TRUNCATED: its end is
            missing; IMAGE_CORRUPT: it is damaged; IMAGE_UNSUPPORTED: a rare
            kind that we do not read, such as a 12-bit JPEG.
    """
    return decode_scaled(data, limits).pixels


def decode_scaled(data: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, longer_side: int | None = None) -> Scaled:
    """Returns an image file's pixels, at a smaller scale where that costs less.

    A JPEG can be decoded at eighths of its size, for a part of the work.

    Args:
        data: A JPEG, PNG or WebP file.
        limits: What it may be.
        longer_side: How many pixels the longer side must keep, if it has them;
            None for all.

    Raises:
        InvalidArgument: As for `decode`.
    """
    kind = headers.kind(data)
    described = True
    if len(data) > limits.file_bytes:
        raise _too_large(f"{len(data)} bytes", f"{limits.file_bytes} bytes")
    if kind == "JPEG":
        described = headers.check_jpeg(data)
    elif kind == "PNG":
        _check_size(*headers.png_size(data), limits)
    elif kind == "WEBP":
        # Pillow allocates a WebP's canvas when it opens the file.
        _check_size(*headers.webp_size(data), limits)
    try:
        if not described and (plain := _plain_jpeg(data, limits, longer_side)) is not None:
            return plain
        with part("decode"), Image.open(io.BytesIO(data), formats=(kind,)) as image:
            _check_size(*image.size, limits)
            pixels = _jpeg(data, image, longer_side) if kind == "JPEG" else _convert(image)
            # Only now: reading a PNG's EXIF loads its pixels, and hides what is wrong with them.
            orientation = _orientation(image)
            width, height = image.size
    except InvalidArgument:
        raise
    except MemoryError as error:
        raise InvalidArgument("The image takes too much memory.", reason="IMAGE_TOO_LARGE") from error
    except Exception as error:
        # On hostile bytes a decoder raises anything: struct.error, SyntaxError, zlib.error, …
        raise _refusal(kind, data, error) from error
    if orientation in _TRANSPOSING:
        width, height = height, width
    return Scaled(_turn(pixels, orientation), width, height)


def encode_jpeg(pixels: Pixels, quality: int = 92) -> bytes:
    """Returns pixels as a JPEG file, 4:4:4; quality 1 to 100."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality))


def encode_png(pixels: Pixels) -> bytes:
    """Returns pixels as a PNG file."""
    file = io.BytesIO()
    with part("encode"):
        # Of photos, run lengths make files as small as zlib's search does, in a third of the time.
        Image.fromarray(pixels).save(file, "PNG", compress_level=4, compress_type=zlib.Z_RLE)
    return file.getvalue()


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise InvalidArgument("The image has no pixels.", reason="IMAGE_CORRUPT")
    if width * height > limits.pixels:
        raise _too_large(f"{width} x {height} pixels", f"{limits.pixels} pixels")


def _too_large(size: str, limit: str) -> InvalidArgument:
    return InvalidArgument(f"The image has {size}; at most {limit} are allowed.", reason="IMAGE_TOO_LARGE")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - broken metadata does not make an image unreadable
        return 1


def _plain_jpeg(data: bytes, limits: ImageLimits, longer_side: int | None) -> Scaled | None:
    """Decodes a JPEG that nothing turns; None for one that Pillow must look at, which takes 0.2 ms more."""
    with part("decode"):
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours not in _PLAIN_COLOURS:
                return None
            _check_size(width, height, limits)
            return Scaled(_decoded(data, (width, height), longer_side), width, height)
        except ValueError:
            return None


def _jpeg(data: bytes, image: Image.Image, longer_side: int | None) -> Pixels:
    if image.mode not in ("RGB", "L"):
        return _convert(image)
    try:
        return _decoded(data, image.size, longer_side)
    except ValueError:
        # It is strict; Pillow reads what has only harmless faults, and says what is wrong with the rest.
        return _convert(image)


def _decoded(data: bytes, size: tuple[int, int], longer_side: int | None) -> Pixels:
    """A JPEG's pixels; raises ValueError where it has any fault."""
    width, height = size
    longer = max(size)
    wanted = longer if longer_side is None else longer_side
    sides = (-(-longer // part_of) for part_of in _FAST_PARTS)
    least = next((side for side in sides if side >= wanted), longer)
    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", **{"min_width" if width >= height else "min_height": least})
    return pixels


def _convert(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    return np.array(image.convert("RGB"))


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes what EXIF's orientation (2 to 8) says of how the camera was held."""
    if orientation in _TRANSPOSING:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _refusal(kind: str, data: bytes, error: Exception) -> InvalidArgument:
    complete = {
        "JPEG": data.rstrip(b"\x00").endswith(b"\xff\xd9"),
        "PNG": b"IEND" in data[-4096:],
        "WEBP": int.from_bytes(data[4:8], "little") + 8 <= len(data),
    }
    if not complete[kind]:
        return headers.truncated()
    if isinstance(error, UnidentifiedImageError):
        return InvalidArgument("The image is damaged, or of a kind that is not read here.", reason="IMAGE_UNSUPPORTED")
    return InvalidArgument("The image is damaged.", reason="IMAGE_CORRUPT")
