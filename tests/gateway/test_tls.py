"""The gateway's certificate, and its clients'."""

from __future__ import annotations

import base64
import datetime as dt
import json
import socket
import ssl
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.mesh.rig import until

from facetmesh.client import Client, Endpoints, Tls

from .conftest import another
from .http import Http

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Gate


class Authority:
    """Issues certificates."""

    def __init__(self, name: str) -> None:
        self._key = generate_private_key(SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self._name, self._key, ca=True)

    def issue(self, folder: Path, name: str) -> int:
        """Puts a certificate and its key into a folder, each by a rename; returns its serial number."""
        key = generate_private_key(SECP256R1())
        made = self._signed(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, ca=False)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for file, content in (("tls.key", pem), ("tls.crt", made.public_bytes(Encoding.PEM))):
            (folder / f".{file}").write_bytes(content)
            (folder / f".{file}").rename(folder / file)
        return made.serial_number

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def _signed(self, name: x509.Name, key: EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )  # fmt: skip
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority() -> Authority:
    """Who signs the gateway's certificate."""
    return Authority("gateway authority")


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
    first = authority.issue(folder, "gateway")
    key = gate.mesh.tenant("acme")
    with another(gate, tmp_path, tls=folder) as plain:
        trust = context(authority)
        secure = Http(plain.port, {"x-api-key": key}, trust)
        assert secure.get("/v1/tenants/acme").status == 200
        tls = Tls(root_certificates=authority.pem)
        with Client(key, Endpoints.gateway(f"localhost:{plain.port}", tls)) as client:
            assert [model.name for model in client.list_models()] == ["tenants/acme/models/faces"]
        assert serial(plain.port, trust) == first
        second = authority.issue(folder, "gateway")
        until(lambda: serial(plain.port, trust) == second, "the new certificate is shown")
        assert secure.get("/v1/tenants/acme").status == 200
        with pytest.raises(OSError, match=r".*"):
            plain.get("/v1/checkpoint")


def test_who_has_no_certificate_is_refused_where_they_are_asked_for(
    gate: Gate, tmp_path: Path, folder: Path, authority: Authority
) -> None:
    clients = Authority("client authority")
    authority.issue(folder, "gateway")
    (folder / "ca.crt").write_bytes(clients.pem)
    own = tmp_path / "own"
    own.mkdir()
    clients.issue(own, "acme's backend")
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
