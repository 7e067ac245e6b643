"""What a fusion may choose: which faces, and how they are put in."""

from __future__ import annotations

from dataclasses import dataclass

from facetmesh.client import calls
from facetmesh.fusion.v1 import fusion_pb2
from facetmesh.kit.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """What a fusion may choose; what is left out is as most want it."""

    source_face_index: int = 0
    """Which of the source's faces is taken; 0 is the largest."""
    sole_source_face: bool = False
    """Whether a source with more than one face is refused."""
    target_face_index: int = 0
    """Which of the target's faces is replaced, counted in the order."""
    pick: str = ""
    """How the target's faces are picked: index, sole (the only one), nearest (to a point), reference (the one that
    looks most like the face of a picture) or all. When empty, as what is given needs it, else index."""
    order: str = "largest"
    """What comes first when they are counted: largest, smallest, leftmost, rightmost, topmost or lowest."""
    near: tuple[float, float] | None = None
    """The point of nearest, in pixels from the target's left and top."""
    reference: bytes | None = None
    """The picture of reference: a JPEG, PNG or WebP file of 1 MB at most, whose largest face counts."""
    min_similarity: float | None = None
    """How much the face must look like it, 0 to 1; the service's default when None."""
    label: str = ""
    """Only faces that the model gave this label, such as FACE_FEMALE."""
    sex: str = ""
    """Only faces that InsightFace's model takes for this: female or male; any when empty."""
    min_age: int = 0
    """Only faces that it takes for so old at least, in years."""
    max_age: int | None = None
    """And for so old at most; any age when None."""
    mask: str = ""
    """What is replaced: face (from the brows down), hull (all within the outline), box or regions. When empty, regions
    where some are named, else face."""
    regions: tuple[str, ...] = ()
    """Parts of the face, for the mask of that name: eyes, nose, mouth, skin."""
    feather: float | None = None
    """Over what width the mask's edge fades, in distances between the eyes, up to 0.3; the service's default when
    None."""
    weight: float | None = None
    """How much of the source is seen within the mask, above 0 and up to 1; 1 when None."""
    ignore_occlusion: bool = False
    """Whether hair, hands and glasses over the face are replaced too."""
    keep_colours: bool = False
    """Whether the source's colours stay as they are."""
    backend: str = ""
    """What puts the face in: mesh or insightface; the operator's choice when empty."""

    def describe(self, fusion: fusion_pb2.Fusion) -> None:
        """Puts them into a request.

        Raises:
            InvalidArgument: MODE_UNKNOWN, ORDER_UNKNOWN, SEX_UNKNOWN, MASK_UNKNOWN, REGION_UNKNOWN or BACKEND_UNKNOWN;
                POINT_MISMATCH, REFERENCE_MISMATCH: there is one, and it is not for what is picked, or none for it.
        """
        fusion.source_face_index, fusion.target_face_index = self.source_face_index, self.target_face_index
        fusion.sole_source_face = self.sole_source_face
        fusion.target_selection.CopyFrom(self._selection())
        fusion.rendering.CopyFrom(self._rendering())
        if self.backend:
            fusion.backend = calls.enum_value(fusion_pb2.Backend, "BACKEND", self.backend)

    def _selection(self) -> fusion_pb2.FaceSelection:
        given = "nearest" if self.near else "reference" if self.reference else "index"
        pick = self.pick or given
        if (pick == "nearest") != (self.near is not None):
            raise InvalidArgument(
                "A point is given to pick the nearest face, and only for that.", reason="POINT_MISMATCH"
            )
        if (pick == "reference") != (self.reference is not None):
            raise InvalidArgument(
                "A reference is given to pick the face that looks like it, and only for that.",
                reason="REFERENCE_MISMATCH",
            )
        x, y = self.near or (0.0, 0.0)
        kinds = fusion_pb2.FaceSelection
        return fusion_pb2.FaceSelection(
            mode=calls.enum_value(kinds.Mode, "MODE", pick), order=calls.enum_value(kinds.Order, "ORDER", self.order),
            x=x, y=y, label=self.label, reference_image=self.reference or b"", min_similarity=self.min_similarity,
            sex=calls.enum_value(kinds.Sex, "SEX", self.sex) if self.sex else kinds.SEX_UNSPECIFIED,
            min_age=self.min_age, max_age=self.max_age,
        )

    def _rendering(self) -> fusion_pb2.Rendering:
        kinds = fusion_pb2.Rendering
        return fusion_pb2.Rendering(
            mask=calls.enum_value(kinds.Mask, "MASK", self.mask or ("regions" if self.regions else "face")),
            regions=[calls.enum_value(kinds.Region, "REGION", region) for region in self.regions],
            feather=self.feather, weight=self.weight,
            ignore_occlusion=self.ignore_occlusion, keep_colours=self.keep_colours,
        )


PLAIN = FusionOptions()
"""What most want."""
