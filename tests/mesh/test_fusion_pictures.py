"""Pictures that fusions name in place of a file, and links to what was made, on real processes."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest

from facetmesh.client import Client, NotFound, PermissionDenied
from facetmesh.fusion.v1 import fusion_pb2, fusion_pb2_grpc
from facetmesh.kit import status

from .rig import consented, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Mesh

ANOTHERS = "tenants/globex/fusions/00000000-0000-0000-0000-000000000000"


@pytest.fixture
def acme(mesh: Mesh) -> Iterator[Client]:
    """A tenant."""
    with mesh.client(mesh.tenant("acme")) as client:
        yield client


@pytest.fixture
def fetch(mesh: Mesh) -> Iterator[Callable[[str, str], bytes | str]]:
    """Fetches a fusion by a link's token, and with no other: its file, or the reason of the refusal."""
    with grpc.insecure_channel(mesh.endpoints.fusion) as channel:
        stub = fusion_pb2_grpc.FusionServiceStub(channel)

        def call(name: str, token: str) -> bytes | str:
            try:
                return b"".join(part.data for part in stub.FetchFusion(
                    fusion_pb2.FetchFusionRequest(name=name, token=token), timeout=60
                ))  # fmt: skip
            except grpc.RpcError as error:
                return status.from_rpc_error(error).reason

        yield call


def link(client: Client, fusion: str, lifetime: timedelta | None = None) -> str:
    """The token of a link."""
    return parse_qs(urlsplit(client.link_fusion(fusion, lifetime=lifetime).path).query)["token"][0]


def test_an_upload_is_fused_and_what_came_of_it_is_fetched_by_a_link(
    mesh: Mesh, acme: Client, fetch: Callable[[str, str], bytes | str], astronaut: bytes
) -> None:
    # One picture, both source and target: sent once.
    sha256 = hashlib.sha256(astronaut).hexdigest()
    upload = acme.upload_image(astronaut)
    assert (upload.name, upload.size_bytes) == (f"tenants/acme/images/{sha256}", len(astronaut))
    assert sha256 in {one.name.rpartition("/")[2] for one in acme.list_images()}
    with mesh.client(mesh.tenant("globex")) as globex, pytest.raises(PermissionDenied) as refusal:
        globex.get_image(upload.name)
    assert refusal.value.reason == "TENANT_MISMATCH"
    consent = consented(acme, astronaut)
    made = acme.fuse(upload.name, f"images/{sha256}", face_model="faces", consent=consent)

    acme.delete_image(upload.name)
    with pytest.raises(NotFound) as missing:
        acme.create_fusion(upload.name, upload.name, face_model="faces", consent=consent)
    assert missing.value.reason == "IMAGE_NOT_FOUND"

    name = made.fusion.name
    token = link(acme, name)
    assert fetch(name, token) == made.content
    said, _, mac = token.partition(".")
    forged = f"{said}.{mac[:-2]}{'AA' if mac[-2:] != 'AA' else 'BB'}"
    assert {
        "expired": fetch(name, link(acme, name, timedelta(milliseconds=1))),
        "forged": fetch(name, forged),
        "said by nobody": fetch(name, said),
        "another's": fetch(ANOTHERS, token),
    } == dict.fromkeys(("expired", "forged", "said by nobody", "another's"), "LINK_INVALID")

    key = acme.create_key(display_name="makes links")
    with mesh.client(key.secret) as maker:
        short = link(maker, name)
    assert fetch(name, short) == made.content
    acme.revoke_key(key.name)
    until(lambda: fetch(name, short) == "LINK_INVALID", "the link ends with the key that made it")
    assert fetch(name, token) == made.content

    acme.delete_fusion(name)
    assert fetch(name, token) == "NOT_FOUND"
