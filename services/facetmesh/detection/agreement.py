"""How much two results of one image agree."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from facetmesh.detection.versions import ClassAgreement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from facetmesh.detection.detector import Classification, Detection, Result

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


def by_class(pairs: Iterable[tuple[Result, Result]]) -> tuple[ClassAgreement, ...]:
    """How far two models agree in a number of images, by class, in the order of the classes' ids.

    Args:
        pairs: Of each image, the result whose word counts, and the other. Of
            results that classify, the most likely class counts as an object.
    """
    reference, found, matched = Counter[int](), Counter[int](), Counter[int]()
    labels: dict[int, str] = {}
    for one, other in pairs:
        for result, tally in ((one, reference), (other, found)):
            objects: Iterable[Detection | Classification] = (*result.detections, *result.classifications[:1])
            for seen in objects:
                labels[seen.class_id] = seen.label
                tally[seen.class_id] += 1
        matched.update(pair[0].class_id for pair in matches(one, other))
        if one.classifications and other.classifications:
            likely = one.classifications[0].class_id
            matched[likely] += likely == other.classifications[0].class_id
    return tuple(ClassAgreement(labels[at], reference[at], found[at], matched[at]) for at in sorted(labels))


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
