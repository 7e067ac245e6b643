"""What a model's file may not say of itself."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_SIDE = 4096
"""Rows or columns of an input: a model for more would take gigabytes for each image."""


@dataclass(frozen=True, slots=True)
class Hints:
    """Said by who brings it."""

    labels: tuple[str, ...] = ()
    """The names of its classes, by class id; the file's when empty."""
    task: str = ""
    """detect, segment, pose, obb or classify; as the file says when empty."""
    height: int = 0
    """Rows of its input where the file leaves them open; the file's, or 640, when 0."""
    width: int = 0
    """Columns of its input where the file leaves them open; the file's, or 640, when 0."""


NONE = Hints()
"""The file says all."""
