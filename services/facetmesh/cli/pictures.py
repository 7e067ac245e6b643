"""Pictures of what the services found and made, for people to look at.

Drawn here and not in a service: only our own results come in, and drawing is the
caller's business. Import this module where it is used: the base install has no
Pillow.
"""

from __future__ import annotations

import io
import itertools
import math
from typing import TYPE_CHECKING, Protocol

from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from facetmesh.detection.v1.detection_pb2 import Classification, Detection, Mask, RotatedBox

    Rectangle = tuple[float, float, float, float]
    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BOX_COLOUR = (255, 200, 0)
"""Boxes and the background of their labels."""
LABEL_COLOUR = (20, 20, 20)
PAPER_COLOUR = (250, 249, 246)
INK_COLOUR = (40, 40, 40)
FAINT_COLOUR = (140, 138, 132)

TINT = 110
"""How strongly an object's pixels are coloured, of 255."""
SEEN = 0.5
"""Points are drawn of which a model is so sure that they can be seen."""
SMALLEST_PX = 1000
"""A photo whose longer side is shorter is enlarged before it is drawn on, so that labels can be read."""
COLUMN_PX = 560
"""Width of one of the three columns of a fusion's picture."""
PHOTO_PX = 420
"""The largest height of a photo there."""
MARGIN_PX = 32
CROP_SCALE = 1.7
"""Side of an enlarged face, relative to its box."""
CAPTIONS = ("source: gives the face", "target: receives it", "fused")


class Box(Protocol):
    """A rectangle in pixels, origin top left: detection's BoundingBox, fusion's FaceBox."""

    @property
    def x_min(self) -> float:
        """Left edge."""
        ...

    @property
    def y_min(self) -> float:
        """Top edge."""
        ...

    @property
    def x_max(self) -> float:
        """Right edge."""
        ...

    @property
    def y_max(self) -> float:
        """Bottom edge."""
        ...


def draw_detections(
    image: bytes, detections: Iterable[Detection], path: Path, classes: Iterable[Classification] = ()
) -> None:
    """Writes the photo with a labelled box around each detection, its mask and its points, as a PNG file.

    Args:
        image: The photo's file, as it was sent.
        detections: What was found in it.
        path: Where the picture goes.
        classes: What the whole of it shows: named in its upper left corner.
    """
    photo = _open(image)
    scale = max(1.0, SMALLEST_PX / max(photo.size))
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    detections = list(detections)
    for one in detections:
        if one.HasField("mask"):
            photo.paste(BOX_COLOUR, (0, 0), _stencil(one.mask).resize(photo.size))
    draw = ImageDraw.Draw(photo)
    width = max(2, round(max(photo.size) / 450))
    font = _font(max(15, round(max(photo.size) / 75)))
    shapes = [(found, _scaled(found.box, scale)) for found in detections]
    for found, rectangle in shapes:
        if found.HasField("rotated_box"):
            draw.polygon(_corners(found.rotated_box, scale), outline=BOX_COLOUR, width=width)
        else:
            draw.rounded_rectangle(rectangle, radius=3 * width, outline=BOX_COLOUR, width=width)
        for point in found.keypoints:
            if point.confidence >= SEEN:
                draw.circle((point.x * scale, point.y * scale), 2 * width, BOX_COLOUR, LABEL_COLOUR)
    taken: list[Rectangle] = []
    for one, rectangle in shapes:
        text = _caption(one)
        taken.append(_label_place(_label_size(font, text), rectangle, photo.size, taken))
        _write(draw, text, font, taken[-1])
    top = 4.0
    for kind in classes:
        text = _caption(kind)
        across, down = _label_size(font, text)
        _write(draw, text, font, (4, top, 4 + across, top + down))
        top += down + 4
    photo.save(path, "PNG")


def draw_fusion(
    source: bytes, target: bytes, result: bytes, source_box: Box, target_boxes: Sequence[Box], path: Path
) -> None:
    """Writes source, target and result side by side, and a face of each enlarged beneath, as a PNG file.

    Args:
        source: The file of the photo that gave the face.
        target: The file of the photo that received it.
        result: The fused photo's file.
        source_box: The face in the source.
        target_boxes: The faces that were replaced in the target, and in the result; the first is enlarged.
        path: Where the picture goes.
    """
    photos = [_open(image) for image in (source, target, result)]
    framed = ([source_box], target_boxes, target_boxes)
    titles, notes = _font(26), _font(17)
    top = MARGIN_PX + 48
    faces_top = top + PHOTO_PX + MARGIN_PX
    paper = Image.new(
        "RGB", (3 * COLUMN_PX + 4 * MARGIN_PX, faces_top + COLUMN_PX + 36 + MARGIN_PX), PAPER_COLOUR
    )
    draw = ImageDraw.Draw(paper)
    for column, (photo, boxes, caption) in enumerate(zip(photos, framed, CAPTIONS, strict=True)):
        box = boxes[0]
        left = MARGIN_PX + column * (COLUMN_PX + MARGIN_PX)
        middle = left + COLUMN_PX / 2
        draw.text((middle, MARGIN_PX + 16), caption, INK_COLOUR, titles, anchor="mm")
        small = ImageOps.contain(photo, (COLUMN_PX, PHOTO_PX), Image.Resampling.LANCZOS)
        outlined = _outlined(small, [_scaled(one, small.width / photo.width) for one in boxes])
        paper.paste(outlined, (round(middle - small.width / 2), round(top + (PHOTO_PX - small.height) / 2)))
        paper.paste(_face(photo, box), (left, faces_top))
        size = f"{photo.width} x {photo.height} px, face {box.x_max - box.x_min:.0f} x {box.y_max - box.y_min:.0f} px"
        draw.text((middle, faces_top + COLUMN_PX + 20), size, FAINT_COLOUR, notes, anchor="mm")
    paper.save(path, "PNG")


def _caption(one: Detection | Classification) -> str:
    return f"{one.label.replace('_', ' ').lower()} {one.confidence:.0%}"


def _write(draw: ImageDraw.ImageDraw, text: str, font: Font, place: Rectangle) -> None:
    draw.rounded_rectangle(place, radius=(place[3] - place[1]) / 6, fill=BOX_COLOUR)
    draw.text(((place[0] + place[2]) / 2, (place[1] + place[3]) / 2), text, LABEL_COLOUR, font, anchor="mm")


def _corners(box: RotatedBox, scale: float) -> list[tuple[float, float]]:
    across = box.width / 2 * math.cos(box.angle_rad), box.width / 2 * math.sin(box.angle_rad)
    down = -box.height / 2 * math.sin(box.angle_rad), box.height / 2 * math.cos(box.angle_rad)
    return [
        ((box.center_x + a * across[0] + d * down[0]) * scale, (box.center_y + a * across[1] + d * down[1]) * scale)
        for a, d in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]


def _stencil(mask: Mask) -> Image.Image:
    """How strongly each pixel is tinted, from COCO's run lengths: numbers of five bits a character, by columns."""
    runs: list[int] = []
    number = shift = 0
    for character in mask.counts.encode():
        digit = character - ord("0")
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))  # noqa: PLR2004 - from the fourth on, differences
        number = shift = 0
    pixels = b"".join(bytes((tint,)) * run for run, tint in zip(runs, itertools.cycle((0, TINT))))
    return Image.frombytes("L", (mask.height, mask.width), pixels).transpose(Image.Transpose.TRANSPOSE)


def _open(image: bytes) -> Image.Image:
    """A photo, as the services see it: upright, and before white where it is transparent."""
    with Image.open(io.BytesIO(image)) as photo:
        upright = ImageOps.exif_transpose(photo)
    if upright.mode.startswith("I"):
        upright = upright.convert("I").point(lambda grey: grey / 256).convert("L")
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return upright.convert("RGB")


def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _scaled(box: Box, scale: float) -> Rectangle:
    return box.x_min * scale, box.y_min * scale, box.x_max * scale, box.y_max * scale


def _outlined(photo: Image.Image, rectangles: Iterable[Rectangle]) -> Image.Image:
    photo = photo.copy()
    for rectangle in rectangles:
        ImageDraw.Draw(photo).rounded_rectangle(rectangle, radius=5, outline=BOX_COLOUR, width=2)
    return photo


def _face(photo: Image.Image, box: Box) -> Image.Image:
    """The face and some of its surroundings, as a square of the column's width."""
    side = min(CROP_SCALE * max(box.x_max - box.x_min, box.y_max - box.y_min), *photo.size)
    x = min(max(0.0, (box.x_min + box.x_max - side) / 2), photo.width - side)
    y = min(max(0.0, (box.y_min + box.y_max - side) / 2), photo.height - side)
    return photo.resize((COLUMN_PX, COLUMN_PX), Image.Resampling.BICUBIC, (x, y, x + side, y + side))


def _label_size(font: Font, text: str) -> tuple[float, float]:
    left, top, right, bottom = font.getbbox(text)
    height = bottom - top
    return right - left + height, 1.9 * height


def _label_place(
    size: tuple[float, float], box: Rectangle, image: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Where a label goes: above its box, else below, else within; not over another label, if it can be helped."""
    width, height = size
    x = min(max(0.0, box[0]), max(0.0, image[0] - width))
    tops = (box[1] - height - 2, box[3] + 2, box[1] + 4, box[3] - height - 4)
    places = [(x, y, x + width, y + height) for y in tops if 0 <= y <= image[1] - height]
    free = [place for place in places if not any(_overlap(place, other) for other in taken)]
    return (free or places or [(x, 0.0, x + width, height)])[0]


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
