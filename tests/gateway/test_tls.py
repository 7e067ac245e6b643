"""The gateway's certificate, and its clients'."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from tests.mesh.rig import until
from tests.unit.certificates import Authority

from facetmesh.client import Client, Endpoints, Tls

from .conftest import another
from .http import Http

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Gate


def issue(authority: Authority, folder: Path, name: str) -> int:
    """Puts a certificate and its key into a folder, each by a rename; returns its serial number."""
    leaf = authority.leaf(name)
    for file, content in (("tls.key", leaf.key), ("tls.crt", leaf.certificate)):
        (folder / f".{file}").write_bytes(content)
        (folder / f".{file}").rename(folder / file)
    return x509.load_pem_x509_certificate(leaf.certificate).serial_number


@pytest.fixture
def authority() -> Authority:
    """Who signs the gateway's certificate."""
    return Authority()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that the one setting names."""
    made = tmp_path / "tls"
    made.mkdir()
    return made


def context(authority: Authority) -> ssl.SSLContext:
    """What trusts an authority."""
    return ssl.create_default_context(cadata=authority.pem.decode())


def serial(port: int, trust: ssl.SSLContext) -> int:
    """The serial number of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        shown = encrypted.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def test_https_and_grpc_with_a_certificate_that_is_renewed(
    gate: Gate, tmp_path: Path, folder: Path, authority: Authority
) -> None:
    first = issue(authority, folder, "gateway")
    key = gate.mesh.tenant("acme")
    with another(gate, tmp_path, tls=folder) as plain:
        trust = context(authority)
        secure = Http(plain.port, {"x-api-key": key}, trust)
        assert secure.get("/v1/tenants/acme").status == 200
        tls = Tls(root_certificates=authority.pem)
        with Client(key, Endpoints.gateway(f"localhost:{plain.port}", tls)) as client:
            assert [model.name for model in client.list_models()] == ["tenants/acme/models/faces"]
        assert serial(plain.port, trust) == first
        second = issue(authority, folder, "gateway")
        until(lambda: serial(plain.port, trust) == second, "the new certificate is shown")
        assert secure.get("/v1/tenants/acme").status == 200
        with pytest.raises(OSError, match=r".*"):
            plain.get("/v1/checkpoint")


def test_who_has_no_certificate_is_refused_where_they_are_asked_for(
    gate: Gate, tmp_path: Path, folder: Path, authority: Authority
) -> None:
    clients = Authority(common_name="client authority")
    issue(authority, folder, "gateway")
    (folder / "ca.crt").write_bytes(clients.pem)
    own = tmp_path / "own"
    own.mkdir()
    issue(clients, own, "acme's backend")
    with another(gate, tmp_path, tls=folder) as plain:
        without, having = context(authority), context(authority)
        having.load_cert_chain(own / "tls.crt", own / "tls.key")
        credentials = {"x-api-key": gate.mesh.tenant("acme")}
        assert Http(plain.port, credentials, having).get("/v1/tenants/acme").status == 200
        bound = Http(plain.port, {}, having).post("/v1/tokens:issue", {"key": gate.mesh.tenant("acme")}).json
        claims = json.loads(base64.urlsafe_b64decode(bound["accessToken"].split(".")[1] + "=="))
        shown = x509.load_pem_x509_certificate((own / "tls.crt").read_bytes()).fingerprint(hashes.SHA256())
        assert claims["cnf"]["x5t#S256"] == base64.urlsafe_b64encode(shown).rstrip(b"=").decode()
        assert Http(plain.port, {}, having).with_token(bound["accessToken"]).get("/v1/tenants/acme").status == 200
        stolen = gate.http.with_token(bound["accessToken"]).get("/v1/tenants/acme")
        assert (stolen.status, stolen.reason) == (401, "TOKEN_BOUND")
        with pytest.raises(OSError, match=r".*"):
            Http(plain.port, credentials, without).get("/v1/tenants/acme")
        channel = grpc.secure_channel(f"localhost:{plain.port}", grpc.ssl_channel_credentials(authority.pem))
        with channel, pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=2)
