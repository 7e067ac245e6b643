"""How a face is put in, as far as a request may say. No native code: the service itself reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FEATHER = 0.06
"""Over what width a mask's edge fades unless a request says it, in eye distances."""
MAX_FEATHER = 0.3
"""The widest edge, in eye distances: beyond it nothing of a face would be left whole."""


class Mask(StrEnum):
    """What of the target is replaced."""

    FACE = "face"
    """The face from the brows down, within its outline: forehead, fringe and contour stay the target's."""
    HULL = "hull"
    """All within the outline, the forehead too."""
    BOX = "box"
    """The upright box around the face."""
    REGIONS = "regions"
    """Parts of the face."""


class Region(StrEnum):
    """A part of the face."""

    EYES = "eyes"
    """With the brows."""
    NOSE = "nose"
    MOUTH = "mouth"
    SKIN = "skin"
    """The face but for eyes, brows and lips."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a face is put in."""

    mask: Mask = Mask.FACE
    regions: tuple[Region, ...] = ()
    """Which parts, for the mask REGIONS alone."""
    feather: float = FEATHER
    """Over what width the mask's edge fades, in eye distances: 0 to MAX_FEATHER."""
    weight: float = 1.0
    """How much of the source is seen within the mask: above 0, to 1."""
    occlusion: bool = True
    """Whether hair, hands and glasses that cover either face stay the target's."""
    colour: bool = True
    """Whether the source's skin is brought into the target's light."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Rendering:
        """From its fields as JSON has them."""
        regions = tuple(Region(region) for region in fields["regions"])
        return cls(**{**fields, "mask": Mask(fields["mask"]), "regions": regions})


PLAIN = Rendering()
"""What a request gets that says nothing."""
