"""Certificate authorities and certificates for tests, made in memory."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key, in PEM."""

    key: bytes
    certificate: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes both; returns the paths of the certificate and of the key."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return certificate, key


@dataclass(frozen=True)
class Authority:
    """An authority that signs certificates."""

    key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    common_name: str = "authority"

    @property
    def name(self) -> x509.Name:
        """Who it is."""
        return _name(self.common_name)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        made = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        return made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def leaf(self, name: str, *, uri: str = "") -> Leaf:
        """A certificate for localhost, 127.0.0.1 and, where one is given, a URI."""
        key = generate_private_key(SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        if uri:
            names.append(x509.UniformResourceIdentifier(uri))
        made = self._builder(_name(name), key).add_extension(x509.SubjectAlternativeName(names), False)
        return Leaf(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM),
        )

    def _builder(self, subject: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - _DAY).not_valid_after(now + _DAY)
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
