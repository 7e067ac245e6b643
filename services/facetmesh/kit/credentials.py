"""What signs C2PA manifests: a P-256 key and the certificates that vouch for it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from facetmesh.kit.errors import FailedPrecondition

SECRET = "provenance-credential"  # noqa: S105 - a name, no secret
"""The secret that holds it: PEM of the private key and of the certificates, the signer's first."""
_LIFE = dt.timedelta(days=3650)
_SKEW = dt.timedelta(hours=1)
_FIELD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Credential:
    """A signing key and its certificates."""

    key: EllipticCurvePrivateKey = field(repr=False)
    chain: str
    """PEM, the signer's certificate first."""

    @classmethod
    def read(cls, pem: str) -> Credential:
        """The credential in a secret.

        Raises:
            FailedPrecondition: CREDENTIAL_INVALID: it is not a P-256 key in PEM with the certificates of that key.
        """
        try:
            key = load_pem_private_key(pem.encode(), None)
            certificates = x509.load_pem_x509_certificates(pem.encode())
        except (ValueError, TypeError):
            raise _invalid() from None
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise _invalid()
        if certificates[0].public_key() != key.public_key():
            raise _invalid()
        return cls(key, "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates))

    @classmethod
    def new(cls, now: dt.datetime) -> Credential:
        """One of our own making. Readers call it valid and untrusted: nobody they know vouches for it.

        The authority's key is thrown away, so that it signs this one certificate and no other. What the certificates
        must say is in C2PA's specification 2.1, section 14.5.
        """
        authority, own = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
        issuer, subject = _name("facetmesh authority"), _name("facetmesh fusion")
        root = (
            _builder(issuer, issuer, authority.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(authority, SHA256())
        )
        leaf = (
            _builder(subject, issuer, own.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
            .sign(authority, SHA256())
        )
        return cls(own, "".join(one.public_bytes(Encoding.PEM).decode() for one in (leaf, root)))

    def pem(self) -> str:
        """It as a secret."""
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private.decode() + self.chain

    def sign(self, data: bytes) -> bytes:
        """ECDSA over SHA-256 as COSE has it: r and s, 32 bytes each."""
        r, s = decode_dss_signature(self.key.sign(data, ECDSA(SHA256())))
        return r.to_bytes(_FIELD_BYTES, "big") + s.to_bytes(_FIELD_BYTES, "big")


def _name(common: str) -> x509.Name:
    # Without an organisation, C2PA's readers have no name to show.
    return x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "facetmesh"), x509.NameAttribute(NameOID.COMMON_NAME, common),
    ])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
        .serial_number(x509.random_serial_number()).not_valid_before(now - _SKEW).not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )  # fmt: skip


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )


def _invalid() -> FailedPrecondition:
    return FailedPrecondition(
        f"The secret {SECRET} must be PEM: a P-256 private key, and its certificates with the key's own first.",
        reason="CREDENTIAL_INVALID",
    )
