"""What an image file says of itself, read before a decoder sees any of it."""

from __future__ import annotations

import re
import struct
from typing import Literal

from facetmesh.kit.errors import InvalidArgument

Kind = Literal["JPEG", "PNG", "WEBP"]

MAX_JPEG_SEGMENTS = 10_000
"""Cameras write a few hundred at most; Pillow joins some of them in quadratic time."""
MAX_JPEG_SCANS = 100
"""Encoders write about ten; every one makes a decoder go through the whole image."""
_FEW_SCANS = 15
MAX_JPEG_SCANNED = _FEW_SCANS * 50_000_000
"""Pixels times scans, where those are more than few: a hundred scans of the largest image took a decoder 12 s."""

_OTHERS = {
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM.{4}\x00\x00\x00\x00", re.DOTALL),
    "TIFF": re.compile(rb"II\*\x00|MM\x00\*"),
    "HEIC": re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL),
    "AVIF": re.compile(rb".{4}ftypavi", re.DOTALL),
    "JPEG 2000": re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"),
    "JPEG XL": re.compile(rb"\x00\x00\x00\x0cJXL |\xff\x0a"),
    "PDF": re.compile(rb"%PDF-"),
    "SVG": re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg"),
}
# Within coded data, FF is followed by 00 or by a restart marker.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE, _METADATA = 0xDA, 0xD9, 0xE1


def kind(data: bytes) -> Kind:
    """Which of the three kinds a file is.

    Raises:
        InvalidArgument: IMAGE_NOT_RECOGNIZED: none of them.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    for name, magic in _OTHERS.items():
        if magic.match(data[:512]):
            raise InvalidArgument(
                f"This is a file of the kind {name}: only JPEG, PNG and WebP are read.", reason="IMAGE_NOT_RECOGNIZED",
            )
    raise InvalidArgument("This is no JPEG, PNG or WebP file.", reason="IMAGE_NOT_RECOGNIZED")


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG from its first chunk, which must be IHDR."""
    if len(data) < 24:  # noqa: PLR2004 - where they end
        raise truncated()
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP from its first chunk: RFC 9649."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:  # noqa: PLR2004 - what the longest of the three needs
        raise truncated()
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise InvalidArgument("The image is damaged.", reason="IMAGE_CORRUPT")


def check_jpeg(data: bytes) -> bool:
    """Refuses a JPEG of so many parts that it would only keep a decoder busy.

    Returns:
        Whether it has metadata, EXIF or XMP, which may say how the camera was held.

    Raises:
        InvalidArgument: IMAGE_UNSUPPORTED.
    """
    position, segments, scans, pixels, described = 2, 0, 0, 0, False
    while found := _JPEG_MARKER.search(data, position):
        position = found.end()
        marker = data[position - 1]
        if marker == _END_OF_IMAGE:
            break
        segments += 1
        scans += marker == _START_OF_SCAN
        described |= marker == _METADATA
        if marker in _JPEG_FRAMES:
            height, width = (int.from_bytes(data[position + at : position + at + 2]) for at in (3, 5))
            pixels = max(pixels, height * width)
        if segments > MAX_JPEG_SEGMENTS or scans > MAX_JPEG_SCANS:
            raise InvalidArgument(
                f"The JPEG has more than {MAX_JPEG_SCANS} scans or {MAX_JPEG_SEGMENTS} segments.",
                reason="IMAGE_UNSUPPORTED",
            )
        if scans > _FEW_SCANS and scans * pixels > MAX_JPEG_SCANNED:
            raise InvalidArgument("The JPEG has too many scans for its size.", reason="IMAGE_UNSUPPORTED")
        position += int.from_bytes(data[position : position + 2])
    return described


def truncated() -> InvalidArgument:
    """The refusal of a file whose end is missing."""
    return InvalidArgument("The image ends too early.", reason="IMAGE_TRUNCATED")
