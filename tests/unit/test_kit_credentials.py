"""Credentials that sign manifests: what is accepted of a secret, and what is made."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, EllipticCurvePublicKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from facetmesh.kit.credentials import Credential
from facetmesh.kit.errors import FailedPrecondition

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def pem(key: object) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()  # type: ignore[attr-defined, no-any-return]


def test_a_credential_survives_the_secret_store() -> None:
    made = Credential.new(NOW)
    read = Credential.read(made.pem())
    assert read.chain == made.chain
    assert read.key.private_numbers() == made.key.private_numbers()
    assert "PRIVATE" not in read.chain
    assert "PRIVATE" not in repr(read)


def test_its_signatures_are_of_the_certificates_key() -> None:
    made = Credential.new(NOW)
    signature = made.sign(b"data")
    assert len(signature) == 64
    leaf, root = x509.load_pem_x509_certificates(made.chain.encode())
    public = leaf.public_key()
    assert isinstance(public, EllipticCurvePublicKey)
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    public.verify(der, b"data", ECDSA(SHA256()))
    leaf.verify_directly_issued_by(root)
    assert leaf.not_valid_before_utc < NOW < leaf.not_valid_after_utc


@pytest.mark.parametrize(
    "secret",
    [
        "", "no PEM", Credential.new(NOW).chain, pem(Credential.new(NOW).key),
        pem(generate_private_key(SECP384R1())) + Credential.new(NOW).chain,
        pem(Ed25519PrivateKey.generate()) + Credential.new(NOW).chain,
        pem(Credential.new(NOW).key) + Credential.new(NOW).chain,
    ],
    ids=["empty", "text", "no key", "no certificate", "P-384", "Ed25519", "another's certificate"],
)
def test_what_is_no_credential_is_refused(secret: str) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        Credential.read(secret)
    assert refusal.value.reason == "CREDENTIAL_INVALID"
