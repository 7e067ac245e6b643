"""How much two results of one image agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facetmesh.detection.detector import Detection, Result

Box = tuple[float, float, float, float]
IOU = 0.5
"""Two boxes of a class that overlap this much are one object: COCO's and Pascal VOC's threshold."""


def overlap(one: Box, other: Box) -> float:
    """The intersection over union of two boxes, each x_min, y_min, x_max, y_max."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def matches(one: Result, other: Result) -> list[tuple[Detection, Detection]]:
    """The pairs of objects of a class that overlap enough, the most confident first; each is in one pair at most."""
    left = list(other.detections)
    pairs = []
    for found in one.detections:
        rivals = [rival for rival in left if rival.class_id == found.class_id]
        best = max(rivals, key=lambda rival: overlap(found.box, rival.box), default=None)
        if best is not None and overlap(found.box, best.box) >= IOU:
            left.remove(best)
            pairs.append((found, best))
    return pairs


def agreement(one: Result, other: Result) -> float:
    """From 0, nothing in common, to 1, the same: the F1 score of one's objects against the other's.

    Of results that classify, whether the most likely class is the same.
    """
    if one.classifications or other.classifications:
        first = [result.classifications[0].class_id for result in (one, other) if result.classifications]
        return float(len(first) == 2 and first[0] == first[1])  # noqa: PLR2004 - both
    total = len(one.detections) + len(other.detections)
    return 2 * len(matches(one, other)) / total if total else 1.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
