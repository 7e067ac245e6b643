"""Pictures: what was found is framed and named, and all of it can be seen."""

from __future__ import annotations

import io
import math
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facetmesh.cli import pictures
from facetmesh.detection.heads import masks
from facetmesh.detection.v1 import detection_pb2
from facetmesh.fusion.v1 import fusion_pb2

if TYPE_CHECKING:
    from pathlib import Path

GREY = (120, 120, 120)


def file(width: int, height: int, colour: tuple[int, int, int] = GREY, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "JPEG", **options)
    return stream.getvalue()


def detection(*box: float, label: str = "FACE_FEMALE") -> detection_pb2.Detection:
    x_min, y_min, x_max, y_max = box
    return detection_pb2.Detection(
        box=detection_pb2.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max), label=label, confidence=0.5
    )


def drawn(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def is_box(pixels: np.ndarray) -> np.ndarray:
    return (pixels == pictures.BOX_COLOUR).all(axis=2)


def test_a_box_is_where_the_detection_is(tmp_path: Path) -> None:
    pictures.draw_detections(file(1200, 900), [detection(300, 200, 500, 450)], tmp_path / "d.png")
    framed = is_box(drawn(tmp_path / "d.png"))
    assert framed.shape == (900, 1200)
    assert framed[325, 300:303].any()
    assert framed[325, 498:501].any()
    assert framed[448:451, 400].any()
    assert not framed[210:440, 310:490].any()


def test_what_else_there_is_of_an_object_is_drawn(tmp_path: Path) -> None:
    """A turned box instead of the upright one, points that can be seen, and the mask's pixels."""
    one = detection(300, 200, 500, 400)
    one.rotated_box.CopyFrom(
        detection_pb2.RotatedBox(center_x=400, center_y=300, width=200, height=100, angle_rad=math.pi / 2)
    )
    one.keypoints.add(label="nose", x=400, y=300, confidence=0.9)
    one.keypoints.add(label="tail", x=380, y=260, confidence=0.1)
    pictures.draw_detections(file(1000, 800), [one], tmp_path / "d.png")
    framed = is_box(drawn(tmp_path / "d.png"))
    assert framed[300, 349:352].any()  # the left edge, once it is turned
    assert not framed[300, 298:303].any()
    assert framed[300, 400]
    assert not framed[260, 380]


@given(data=st.data())
def test_a_mask_is_tinted_where_it_is(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    bits = data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    whole = np.array(bits).reshape(rows, columns)
    text = masks.encode(masks.runs(whole, 0, 0, (rows, columns)))
    stencil = np.asarray(pictures._stencil(detection_pb2.Mask(height=rows, width=columns, counts=text)))
    np.testing.assert_array_equal(stencil > 0, whole)


def test_classes_of_the_whole_are_named_in_the_corner(tmp_path: Path) -> None:
    classes = [detection_pb2.Classification(label=label, confidence=0.5) for label in ("cat", "dog")]
    pictures.draw_detections(file(1000, 800), [], tmp_path / "d.png", classes)
    named = is_box(drawn(tmp_path / "d.png"))
    assert named[:100, :200].any()
    assert not named[100:].any()
    assert not named[:, 200:].any()


def test_a_small_photo_is_enlarged(tmp_path: Path) -> None:
    pictures.draw_detections(file(200, 100), [detection(20, 20, 60, 80)], tmp_path / "d.png")
    framed = is_box(drawn(tmp_path / "d.png"))
    assert framed.shape == (500, 1000)
    assert framed[250, 98:106].any()


@pytest.mark.parametrize(
    "box", [(0, 0, 100, 100), (1150, 850, 1200, 900), (0, 0, 1200, 900), (-30, -30, 50, 50), (600, 0, 601, 900)]
)
def test_a_label_stays_in_the_picture(tmp_path: Path, box: tuple[float, float, float, float]) -> None:
    pictures.draw_detections(file(1200, 900), [detection(*box)], tmp_path / "d.png")
    text = (drawn(tmp_path / "d.png") == pictures.LABEL_COLOUR).all(axis=2)
    assert text.sum() > 60


def test_labels_of_neighbours_do_not_cover_each_other(tmp_path: Path) -> None:
    alone, both = tmp_path / "1.png", tmp_path / "2.png"
    pictures.draw_detections(file(1200, 900), [detection(300, 200, 500, 450)], alone)
    found = [detection(300, 200, 500, 450), detection(310, 202, 520, 470)]
    pictures.draw_detections(file(1200, 900), found, both)
    text = [(drawn(path) == pictures.LABEL_COLOUR).all(axis=2).sum() for path in (alone, both)]
    assert text[1] == pytest.approx(2 * text[0], rel=0.1)


def test_nothing_found_is_the_photo(tmp_path: Path) -> None:
    pictures.draw_detections(file(1200, 900), [], tmp_path / "d.png")
    assert np.abs(drawn(tmp_path / "d.png").astype(int) - GREY).max() < 5


def test_a_photo_is_drawn_the_way_it_is_held(tmp_path: Path) -> None:
    exif = b"Exif\x00\x00MM\x00*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    pictures.draw_detections(file(1200, 900, exif=exif), [], tmp_path / "d.png")
    assert drawn(tmp_path / "d.png").shape[:2] == (1200, 900)


@pytest.mark.parametrize("size", [(1280, 886), (300, 900), (64, 64)])
def test_a_fusion_shows_three_photos_and_their_faces(tmp_path: Path, size: tuple[int, int]) -> None:
    red, green, blue = (200, 30, 30), (30, 160, 30), (30, 30, 200)
    box = fusion_pb2.FaceBox(x_min=10, y_min=10, x_max=50, y_max=60)
    pictures.draw_fusion(
        file(512, 512, red), file(*size, green), file(*size, blue), box, [box], tmp_path / "f.png"
    )
    pixels = drawn(tmp_path / "f.png").astype(int)
    for column, colour in enumerate((red, green, blue)):
        left = pictures.MARGIN_PX + column * (pictures.COLUMN_PX + pictures.MARGIN_PX)
        strip = pixels[:, left : left + pictures.COLUMN_PX]
        near = np.abs(strip - colour).max(axis=2) < 25
        rows = np.flatnonzero(near.sum(axis=1) > 20)
        assert len(rows) > pictures.COLUMN_PX + 100  # the photo above, the enlarged face beneath
        assert near[rows[-5]].all()
        others = [other for other in (red, green, blue) if other != colour]
        assert not any((np.abs(strip - other).max(axis=2) < 25).any() for other in others)
        assert is_box(strip).any()
    assert (np.abs(pixels - pictures.INK_COLOUR).max(axis=2) < 40).sum() > 200


@pytest.mark.parametrize("kind", ["16 bits", "transparent"])
def test_photos_are_shown_as_the_services_see_them(tmp_path: Path, kind: str) -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    odd, plain = (
        (Image.fromarray(ramp.astype(np.uint16) << 8), Image.fromarray(ramp)) if kind == "16 bits"
        else (Image.fromarray(np.dstack([np.zeros_like(ramp), ramp]), "LA"), Image.fromarray(255 - ramp))
    )  # fmt: skip
    box = fusion_pb2.FaceBox(x_min=10, y_min=10, x_max=50, y_max=60)
    shown = []
    for number, image in enumerate((odd, plain)):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        photo, path = stream.getvalue(), tmp_path / f"{number}.png"
        pictures.draw_fusion(photo, photo, photo, box, [box], path)
        shown.append(drawn(path).astype(int))
    assert np.abs(shown[0] - shown[1]).max() <= 1


def test_all_faces_that_were_replaced_are_framed(tmp_path: Path) -> None:
    boxes = [fusion_pb2.FaceBox(x_min=x, y_min=100, x_max=x + 80, y_max=200) for x in (40, 400)]
    photo = file(560, 420)
    pictures.draw_fusion(photo, photo, photo, boxes[0], boxes, tmp_path / "f.png")
    framed = is_box(drawn(tmp_path / "f.png"))
    top = pictures.MARGIN_PX + 48
    for column, faces in enumerate((1, 2, 2)):
        left = pictures.MARGIN_PX + column * (pictures.COLUMN_PX + pictures.MARGIN_PX)
        middle = framed[top + 150, left : left + pictures.COLUMN_PX]
        assert (np.diff(np.flatnonzero(middle)) > 1).sum() + 1 == 2 * faces  # each has a left and a right edge
