"""A mesh whose services speak TLS with each other and with their callers, each with a certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from tests.unit.certificates import Authority

from facetmesh.cli.mesh.home import Home
from facetmesh.client import Client, Endpoints, Tls, Unauthenticated, Unavailable
from facetmesh.detection.v1 import model_pb2, model_pb2_grpc
from facetmesh.kit import status

from .conftest import FACES, running
from .rig import Cli, consented

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Collector


@pytest.mark.full
def test_a_mesh_speaks_tls_throughout_and_tokens_are_bound(
    tmp_path: Path, collector: Collector, assets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    certificate, key = authority.leaf("service").write(tmp_path, "service")
    own = tmp_path / "own.pem"
    leaf, other = authority.leaf("caller"), authority.leaf("other")
    own.write_bytes(leaf.certificate + leaf.key)
    for name, path in {"CERT": certificate, "KEY": key, "CLIENT_CA": ca, "CA": ca}.items():
        monkeypatch.setenv(f"FACETMESH_TLS_{name}", str(path))
    photo = assets["photo-six-faces"].read_bytes()
    with running(tmp_path / "home", collector) as mesh:
        with mesh.client(mesh.admin_key) as plain, pytest.raises(Unavailable):
            plain.token()
        monkeypatch.setenv("FACETMESH_CA_FILE", str(ca))
        monkeypatch.setenv("FACETMESH_CERT_FILE", str(own))
        cli = Cli(Home(mesh.home))
        made = cli.ok("tenants", "onboard", "acme", "--model=nudenet-320n", "--accept-licence=AGPL-3.0")
        secret = made["key"]["secret"]
        where = Endpoints.read(mesh.home / "endpoints.json")
        places = (where.auth, where.detection, where.fusion, where.audit)
        with Client(secret, Endpoints(*places, Tls(authority.pem, leaf.key, leaf.certificate))) as client:
            assert len(client.detect("nudenet-320n", photo, labels=FACES).detections) == 6
            consent = consented(client, photo)
            fused = client.fuse(photo, photo, face_model="nudenet-320n", consent=consent)  # fusion asks detection
            assert client.receipt(fused.fusion.receipt, wait_s=30)
            token = client.token().access_token
        with pytest.raises(Unauthenticated) as refusal:
            _stolen(where.detection, token, Tls(authority.pem, other.key, other.certificate))
        assert refusal.value.reason == "TOKEN_BOUND"


def _stolen(address: str, token: str, tls: Tls) -> None:
    """Uses another's token."""
    credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
    with grpc.secure_channel(address, credentials) as channel:
        try:
            model_pb2_grpc.ModelServiceStub(channel).ListModels(
                model_pb2.ListModelsRequest(parent="tenants/acme"), metadata=(("authorization", f"Bearer {token}"),),
                timeout=20,
            )
        except grpc.RpcError as error:
            raise status.from_rpc_error(error) from None
