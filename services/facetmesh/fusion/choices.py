"""The options of a request, between protobuf and the domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from facetmesh.fusion.backends import Backend
from facetmesh.fusion.faces import MIN_SIMILARITY, Order, Pick, Selection, Sex
from facetmesh.fusion.options import Options
from facetmesh.fusion.pipeline.rendering import Mask, Region, Rendering
from facetmesh.fusion.v1 import fusion_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

Wire = TypeVar("Wire")
Value = TypeVar("Value")
_PICKS = {
    pb.FaceSelection.MODE_INDEX: Pick.INDEX,
    pb.FaceSelection.MODE_SOLE: Pick.SOLE,
    pb.FaceSelection.MODE_NEAREST: Pick.NEAREST,
    pb.FaceSelection.MODE_ALL: Pick.ALL,
    pb.FaceSelection.MODE_REFERENCE: Pick.REFERENCE,
}
_ORDERS = {
    pb.FaceSelection.ORDER_LARGEST: Order.LARGEST,
    pb.FaceSelection.ORDER_SMALLEST: Order.SMALLEST,
    pb.FaceSelection.ORDER_LEFTMOST: Order.LEFTMOST,
    pb.FaceSelection.ORDER_RIGHTMOST: Order.RIGHTMOST,
    pb.FaceSelection.ORDER_TOPMOST: Order.TOPMOST,
    pb.FaceSelection.ORDER_LOWEST: Order.LOWEST,
}
_SEXES = {pb.FaceSelection.SEX_FEMALE: Sex.FEMALE, pb.FaceSelection.SEX_MALE: Sex.MALE}
_MASKS = {
    pb.Rendering.MASK_FACE: Mask.FACE,
    pb.Rendering.MASK_HULL: Mask.HULL,
    pb.Rendering.MASK_BOX: Mask.BOX,
    pb.Rendering.MASK_REGIONS: Mask.REGIONS,
}
_REGIONS = {
    pb.Rendering.REGION_EYES: Region.EYES,
    pb.Rendering.REGION_NOSE: Region.NOSE,
    pb.Rendering.REGION_MOUTH: Region.MOUTH,
    pb.Rendering.REGION_SKIN: Region.SKIN,
}
BACKENDS = {pb.BACKEND_MESH: Backend.MESH, pb.BACKEND_INSIGHTFACE: Backend.INSIGHTFACE}
"""The backends by their names in protobuf."""


def options_of(fusion: pb.Fusion) -> Options:
    """What a request chose; what it left out is as `Options` has it."""
    chosen, how, plain = fusion.target_selection, fusion.rendering, Rendering()
    return Options(
        sole_source=fusion.sole_source_face,
        targets=Selection(
            _PICKS.get(chosen.mode, Pick.INDEX), _ORDERS.get(chosen.order, Order.LARGEST),
            (chosen.x, chosen.y), chosen.label,
            chosen.min_similarity if chosen.HasField("min_similarity") else MIN_SIMILARITY,
            _SEXES.get(chosen.sex), chosen.min_age, chosen.max_age if chosen.HasField("max_age") else None,
        ),
        rendering=Rendering(
            mask=_MASKS.get(how.mask, Mask.FACE),
            # In one order, so that a repeated request is the same however it lists them.
            regions=tuple(sorted(_REGIONS[region] for region in how.regions)),
            feather=how.feather if how.HasField("feather") else plain.feather,
            weight=how.weight if how.HasField("weight") else plain.weight,
            occlusion=not how.ignore_occlusion,
            colour=not how.keep_colours,
        ),
        backend=BACKENDS.get(fusion.backend),
    )


def describe(fusion: pb.Fusion, options: Options) -> None:
    """Says in an answer what was chosen, but for the backend: that is the result's."""
    chosen, how = options.targets, options.rendering
    fusion.sole_source_face = options.sole_source
    if chosen != Selection():
        fusion.target_selection.CopyFrom(pb.FaceSelection(
            mode=_back(_PICKS, chosen.pick), order=_back(_ORDERS, chosen.order),
            x=chosen.near[0], y=chosen.near[1], label=chosen.label,
            min_similarity=chosen.min_similarity if chosen.pick is Pick.REFERENCE else None,
            sex=_back(_SEXES, chosen.sex) if chosen.sex else pb.FaceSelection.SEX_UNSPECIFIED,
            min_age=chosen.min_age, max_age=chosen.max_age,
        ))
    if how != Rendering():
        fusion.rendering.CopyFrom(pb.Rendering(
            mask=_back(_MASKS, how.mask), regions=[_back(_REGIONS, region) for region in how.regions],
            feather=how.feather, weight=how.weight,
            ignore_occlusion=not how.occlusion, keep_colours=not how.colour,
        ))


def _back(table: Mapping[Wire, Value], wanted: Value) -> Wire:
    """The name that a value has in protobuf."""
    return next(wire for wire, value in table.items() if value is wanted)
