"""What a caller may choose of a fusion reaches the service as protobuf has it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from facetmesh.client import FusionOptions
from facetmesh.fusion.backends import Backend
from facetmesh.fusion.choices import options_of
from facetmesh.fusion.faces import Order, Pick, Selection, Sex
from facetmesh.fusion.options import Options
from facetmesh.fusion.pipeline.rendering import Mask, Region, Rendering
from facetmesh.fusion.v1 import fusion_pb2
from facetmesh.kit.errors import InvalidArgument


def described(**chosen: Any) -> fusion_pb2.Fusion:
    fusion = fusion_pb2.Fusion()
    FusionOptions(**chosen).describe(fusion)
    return fusion


def test_nothing_chosen_is_what_the_service_does_by_itself() -> None:
    assert options_of(described()) == options_of(fusion_pb2.Fusion()) == Options()


def test_all_that_can_be_chosen_arrives() -> None:
    fusion = described(
        source_face_index=1, target_face_index=2, order="leftmost", label="FACE_MALE", regions=("nose", "eyes"),
        feather=0.0, weight=0.5, ignore_occlusion=True, keep_colours=True, sole_source_face=True, sex="female",
        min_age=18, max_age=0,
    )
    assert (fusion.source_face_index, fusion.target_face_index) == (1, 2)
    assert options_of(fusion) == Options(
        sole_source=True,
        targets=Selection(Pick.INDEX, Order.LEFTMOST, label="FACE_MALE", sex=Sex.FEMALE, min_age=18, max_age=0),
        rendering=Rendering(Mask.REGIONS, (Region.EYES, Region.NOSE), 0.0, 0.5, occlusion=False, colour=False),
    )


@pytest.mark.parametrize("pick", list(Pick))
def test_every_way_to_pick_has_its_name(pick: Pick) -> None:
    near = (3.0, 4.0) if pick is Pick.NEAREST else None
    reference = b"who" if pick is Pick.REFERENCE else None
    assert options_of(described(pick=pick.value, near=near, reference=reference)).targets.pick is pick


def test_the_other_names_are_those_of_the_service() -> None:
    for order in Order:
        assert options_of(described(order=order.value)).targets.order is order
    for sex in Sex:
        assert options_of(described(sex=sex.value)).targets.sex is sex
    for mask in Mask:
        assert options_of(described(mask=mask.value)).rendering.mask is mask
    for region in Region:
        assert options_of(described(regions=(region.value,))).rendering.regions == (region,)


def test_every_backend_has_its_name() -> None:
    for backend in Backend:
        assert options_of(described(backend=backend.value)).backend is backend


def test_a_reference_alone_means_the_face_that_looks_like_it() -> None:
    fusion = described(reference=b"who", min_similarity=0.5)
    assert options_of(fusion).targets == Selection(Pick.REFERENCE, min_similarity=0.5)
    assert fusion.target_selection.reference_image == b"who"
    for chosen in ({"pick": "reference"}, {"pick": "all", "reference": b"who"}):
        with pytest.raises(InvalidArgument) as refusal:
            described(**chosen)
        assert refusal.value.reason == "REFERENCE_MISMATCH"


def test_a_point_alone_means_the_nearest_face() -> None:
    assert options_of(described(near=(10, 20))).targets == Selection(Pick.NEAREST, near=(10, 20))


@pytest.mark.parametrize("chosen", [
    {"pick": "nearest"}, {"pick": "all", "near": (0.0, 0.0)}, {"pick": "index", "near": (1.0, 2.0)},
])
def test_a_point_goes_with_the_nearest_and_with_nothing_else(chosen: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        described(**chosen)
    assert caught.value.reason == "POINT_MISMATCH"


@pytest.mark.parametrize(("chosen", "reason", "names"), [
    ({"pick": "some"}, "MODE_UNKNOWN", "index, sole, nearest, all"),
    ({"order": "prettiest"}, "ORDER_UNKNOWN", "largest"),
    ({"sex": "unspecified"}, "SEX_UNKNOWN", "female, male"),
    ({"mask": "unspecified"}, "MASK_UNKNOWN", "hull"),
    ({"regions": ("ears",)}, "REGION_UNKNOWN", "mouth"),
])
def test_what_there_is_not_is_refused_with_what_there_is(chosen: dict[str, Any], reason: str, names: str) -> None:
    with pytest.raises(InvalidArgument, match=names) as caught:
        described(**chosen)
    assert caught.value.reason == reason


def test_options_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FusionOptions().weight = 0.5  # type: ignore[misc]
