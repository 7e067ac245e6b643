"""Images as tenants send them: fair ones in all their kinds, and hostile ones."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from facetmesh.kit.errors import FacetmeshError, InvalidArgument
from facetmesh.runners import headers, images
from facetmesh.runners.images import ImageLimits

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, HEIGHT = 96, 64
ORIENTATION = 0x0112
AT_ONCE_S = 30.0
"""Far below what decoding would take, far above what a busy machine makes of a millisecond."""


def picture(mode: str = "RGB") -> Image.Image:
    """A smooth picture in which every corner has another colour."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([x * 255 // WIDTH, y * 255 // HEIGHT, 255 - x * 255 // WIDTH], axis=2).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG file that claims a size."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header claims a size."""
    data = bytearray(saved(picture(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_of(width: int, height: int) -> bytes:
    """An extended WebP whose header claims a size."""
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\x02\x00\x00\x00"
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def refusal(data: bytes, limits: ImageLimits = images.DEFAULT_LIMITS) -> str:
    """The reason with which a file is refused."""
    with pytest.raises(InvalidArgument) as caught:
        images.decode(data, limits)
    return caught.value.reason


FILES = {
    "JPEG": saved(picture(), "JPEG", quality=95),
    "progressive JPEG": saved(picture(), "JPEG", quality=95, progressive=True),
    "PNG": saved(picture(), "PNG"),
    "WebP": saved(picture(), "WEBP", quality=95),
    "lossless WebP": saved(picture(), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", FILES)
def test_kinds(kind: str) -> None:
    """Each kind comes out as RGB of the same size and look."""
    pixels = images.decode(FILES[kind])
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(picture())).mean() < 5


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, "PNG") for mode in ("L", "1", "P", "LA", "RGBA")] + [("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "WEBP")],
)
def test_modes(mode: str, kind: str) -> None:
    """Each colour mode becomes RGB."""
    image = picture(mode)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(images.decode(saved(image, kind)) - expected).mean() < 5


def test_sixteen_bits_become_eight() -> None:
    """The upper eight."""
    deep = (np.arange(WIDTH, dtype=np.uint16) * 600)[np.newaxis].repeat(HEIGHT, axis=0)
    pixels = images.decode(saved(Image.fromarray(deep), "PNG"))
    assert np.array_equal(pixels[0, :, 0], deep[0] >> 8)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_transparency_lies_over_white() -> None:
    """What is hidden under it does not show."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (images.decode(saved(image, "PNG")) == 255).all()


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    """As it would in a viewer that knows no animation."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    pixels = images.decode(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert pixels[4, 4, 0] > 200
    assert pixels[4, 4, 2] < 50


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("longer_side", [None, 24])
def test_orientation(kind: str, orientation: int, longer_side: int | None) -> None:
    """EXIF's eight orientations, as Pillow undoes them; sizes are those after it."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = saved(picture(), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    scaled = images.decode_scaled(data, longer_side=longer_side)
    assert (scaled.width, scaled.height) == expected.size
    rows, columns = scaled.pixels.shape[:2]
    small = np.asarray(expected.resize((columns, rows), Image.Resampling.BOX)).astype(int)
    assert np.abs(scaled.pixels - small).mean() < 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_no_broken_image() -> None:
    """The pixels are what was asked for."""
    data = saved(picture(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert images.decode(data).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("wanted", "got"), [(None, 96), (1000, 96), (96, 96), (49, 96), (48, 48), (25, 48), (24, 24), (12, 12), (1, 12)]
)
def test_a_jpeg_is_decoded_no_larger_than_needed(wanted: int | None, got: int) -> None:
    """At the least of the fast scales that keeps the longer side."""
    scaled = images.decode_scaled(FILES["JPEG"], longer_side=wanted)
    assert scaled.pixels.shape[1] == got
    assert (scaled.width, scaled.height) == (WIDTH, HEIGHT)
    tall = images.decode_scaled(saved(picture().rotate(90, expand=True), "JPEG"), longer_side=wanted)
    assert tall.pixels.shape[0] == got


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"GIF89a" + bytes(100), b"<svg/>", b"RIFF\x00\x00\x00\x00WAVE", bytes(50_000_000)],
    ids=["nothing", "two bytes", "GIF", "SVG", "WAVE", "50 MB of zeros"],
)  # fmt: skip
def test_what_is_no_image(data: bytes) -> None:
    """Told from its first bytes."""
    assert refusal(data) == "IMAGE_NOT_RECOGNIZED"


@pytest.mark.parametrize(
    ("name", "data"),
    [(kind, saved(picture(), kind)) for kind in ("GIF", "BMP", "TIFF", "AVIF")]
    + [("HEIC", b"\x00\x00\x00\x18ftypheic"), ("SVG", b'<?xml version="1.0"?>\n<svg/>'), ("PDF", b"%PDF-1.7")],
)
def test_other_kinds_are_refused_by_name(name: str, data: bytes) -> None:
    """Who sends a phone's HEIC learns what it is."""
    with pytest.raises(InvalidArgument, match=name):
        images.decode(data)


PROGRESSIVE = FILES["progressive JPEG"]
SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
SEGMENTS = {"Exif": b"\xff\xe1\x00\x0eExif\x00\x00MM\x00*\x00\x00", "comments": b"\xff\xfe\x00\x02"}


@pytest.mark.parametrize("data", [
    PROGRESSIVE[:-2] + SCAN * 10_000 + b"\xff\xd9",
    *(FILES["JPEG"][:2] + segment * 1_000_000 + FILES["JPEG"][2:] for segment in SEGMENTS.values()),
], ids=["scans", *SEGMENTS])  # fmt: skip
def test_a_jpeg_that_only_keeps_a_decoder_busy(data: bytes) -> None:
    """Refused before a decoder spends its minutes on it."""
    began = time.perf_counter()
    assert refusal(data) == "IMAGE_UNSUPPORTED"
    assert time.perf_counter() - began < AT_ONCE_S


def test_markers_in_what_a_jpeg_carries_are_no_segments() -> None:
    """Neither in its metadata nor behind its end."""
    data, noise = FILES["JPEG"], b"\xff\xda" * 30_000
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(noise)) + noise
    assert images.decode(data[:2] + exif + data[2:] + noise).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("data", [
    png_header(60_000, 60_000), png_header(60_000, 60_000) + chunk(b"IDAT", b""), jpeg_of(65_000, 65_000),
    webp_of(16_000_000, 16_000_000), FILES["JPEG"] + bytes(20_000_000),
], ids=["PNG", "PNG with data", "JPEG", "WebP", "file"])  # fmt: skip
def test_what_is_too_large_is_refused_at_once(data: bytes) -> None:
    """From the header, before any pixel is touched."""
    began = time.perf_counter()
    assert refusal(data) == "IMAGE_TOO_LARGE"
    assert time.perf_counter() - began < AT_ONCE_S


@pytest.mark.parametrize("kind", FILES)
def test_limits_are_the_callers(kind: str) -> None:
    """One pixel too many."""
    images.decode(FILES[kind], ImageLimits(pixels=WIDTH * HEIGHT))
    assert refusal(FILES[kind], ImageLimits(pixels=WIDTH * HEIGHT - 1)) == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.9])
def test_truncated(kind: str, kept: float) -> None:
    """Half a picture is no picture."""
    data = FILES[kind]
    assert refusal(data[: int(len(data) * kept)]) == "IMAGE_TRUNCATED"


def test_a_png_of_no_size() -> None:
    """Zero columns."""
    assert refusal(png_header(0, 5) + chunk(b"IEND", b"")) in {"IMAGE_CORRUPT", "IMAGE_UNSUPPORTED"}


def test_one_pixel() -> None:
    """The smallest image there is."""
    for kind in ("JPEG", "PNG", "WEBP"):
        assert images.decode(saved(Image.new("RGB", (1, 1), "white"), kind)).shape == (1, 1, 3)


def test_a_twelve_bit_jpeg_is_not_supported() -> None:
    """And says so."""
    data = bytearray(FILES["JPEG"])
    data[data.index(b"\xff\xc0") + 4] = 12
    assert refusal(bytes(data)) == "IMAGE_UNSUPPORTED"


def test_a_damaged_png() -> None:
    """Complete, and wrong inside."""
    data = bytearray(FILES["PNG"])
    at = data.index(b"IDAT") + 4
    data[at : at + 2] = b"\xff\xff"
    assert refusal(bytes(data)) == "IMAGE_CORRUPT"


def outcome(decode: Callable[[bytes], object], data: bytes) -> None:
    """Decodes; a refusal of ours is as good as a picture, anything else is not."""
    try:
        decode(data)
    except FacetmeshError as error:
        assert error.code == "INVALID_ARGUMENT"  # noqa: PT017 - either way is fine


MAGICS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x01\x00\x00WEBP", b"RIFF\x00\x01\x00\x00WEBPVP8X"]


@settings(max_examples=300, deadline=None)
@given(magic=st.sampled_from(MAGICS), data=st.binary(max_size=400))
def test_random_bytes_are_refused_or_read(magic: bytes, data: bytes) -> None:
    """Nothing but our own errors comes out, whatever goes in."""
    outcome(images.decode, magic + data)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(sorted(FILES)), seed=st.integers(0, 2**32), changes=st.integers(1, 12), data=st.data())
def test_mutated_files_are_refused_or_read(kind: str, seed: int, changes: int, data: st.DataObject) -> None:
    """Headers and contents with bytes changed, cut out and put in."""
    mutated = bytearray(FILES[kind])
    chance = random.Random(seed)  # noqa: S311 - no secret
    reach = data.draw(st.sampled_from([64, 700, len(mutated)]))
    for _ in range(changes):
        at = chance.randrange(min(reach, len(mutated)))
        match chance.randrange(3):
            case 0:
                mutated[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
            case 1:
                del mutated[at : at + chance.randrange(1, 9)]
            case _:
                mutated[at:at] = chance.randbytes(chance.randrange(1, 9))
    small = ImageLimits(pixels=4_000_000)
    outcome(lambda file: images.decode_scaled(file, small, longer_side=32), bytes(mutated))


def test_encoding_comes_back() -> None:
    """PNG exactly, JPEG nearly."""
    pixels = np.asarray(picture())
    assert np.array_equal(images.decode(images.encode_png(pixels)), pixels)
    assert np.abs(images.decode(images.encode_jpeg(pixels)).astype(int) - pixels).mean() < 3


def test_a_large_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    """Each takes a decoder through the whole image: half a megabyte kept one busy for 12 s."""
    start, length = b"\xff\xd8", (17).to_bytes(2)

    def claims(side: int, scans: int) -> bytes:
        frame = b"\xff\xc2" + length + b"\x08" + 2 * side.to_bytes(2) + bytes(10)
        return start + frame + scans * b"\xff\xda\x00\x02" + b"\xff\xd9"

    with pytest.raises(InvalidArgument) as refusal:
        headers.check_jpeg(claims(7000, 16))
    assert (refusal.value.reason, "for its size" in refusal.value.message) == ("IMAGE_UNSUPPORTED", True)
    for side, scans in ((7000, 15), (2500, 100), (60_000, 1)):  # the last is too large for other reasons
        assert not headers.check_jpeg(claims(side, scans))
