"""What the service makes of a child's reply: a child is not trusted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.detection.detector import Keypoint, read_result
from facetmesh.kit.errors import Internal

LABELS = ("face", "hand")
GOOD: dict[str, Any] = {
    "width": 100,
    "height": 50,
    "detections": [{"box": [1, 2.5, 3, 4], "class_id": 1, "confidence": 0.5, "keypoints": [["left_eye", 1, 2, 0.9]]}],
}


def test_a_fair_reply_is_read() -> None:
    """With labels by class id."""
    result = read_result(GOOD, LABELS)
    assert (result.width, result.height) == (100, 50)
    (found,) = result.detections
    assert (found.box, found.label, found.confidence) == ((1, 2.5, 3, 4), "hand", 0.5)
    assert found.keypoints == (Keypoint("left_eye", 1, 2, 0.9),)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("box", [1, 2, 3]), ("box", [1, 2, 3, float("nan")]), ("box", "123"), ("box", None), ("box", [-1, 2, 3, 4]),
        ("box", [1, 2, 3, 51]),
        ("class_id", 2), ("class_id", -1), ("class_id", "0"), ("class_id", 0.0), ("class_id", True),
        ("confidence", float("inf")), ("confidence", None), ("confidence", 10**400), ("confidence", 1.01),
        ("keypoints", [[1, 2]]), ("keypoints", [["x", "1", 2, 1]]), ("keypoints", 5),
        ("rotated_box", [1, 2, 3, 4]), ("rotated_box", [1, 2, 3, 4, 10**400]), ("rotated_box", [1, 2, 3, 4, "5"]),
    ],
)  # fmt: skip
def test_nonsense_about_an_object_is_refused(field: str, value: object) -> None:
    """As our fault: the caller can do nothing about it."""
    reply = copy.deepcopy(GOOD)
    reply["detections"][0][field] = value
    with pytest.raises(Internal) as caught:
        read_result(reply, LABELS)
    assert caught.value.reason == "RUNNER_REPLY_INVALID"


@pytest.mark.parametrize("classes", [[[-1, 0.5]], [[True, 0.5]], [[2, 0.5]], [[0, 2]], [0], {"a": 1}])
def test_nonsense_about_classes_is_refused(classes: object) -> None:
    with pytest.raises(Internal):
        read_result({**GOOD, "classes": classes}, LABELS)


FIELDS = ["box", "class_id", "confidence", "keypoints", "rotated_box"]
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4)
    | st.dictionaries(st.sampled_from(FIELDS), children, max_size=4),
    max_leaves=12,
)


@given(width=json, detections=json)
def test_any_reply_is_read_or_refused(width: object, detections: object) -> None:
    """No other exception comes out."""
    try:
        read_result({"width": width, "height": 5, "detections": detections}, LABELS)
    except Internal as error:
        assert error.reason == "RUNNER_REPLY_INVALID"  # noqa: PT017 - either way is fine
