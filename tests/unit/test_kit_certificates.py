"""Which certificate a caller has: his own, or the one that the gateway says, and nobody else."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.kit.certificates import FORWARDED, Certificates, forwarded
from facetmesh.kit.gateways import Gateway

from .certificates import Authority

GATEWAY = "spiffe://facetmesh.local/gateway"
DIGEST = bytes(range(32))
HASH = DIGEST.hex()
THUMBPRINT = base64.urlsafe_b64encode(DIGEST).rstrip(b"=").decode()


@dataclass
class Call:
    """What gRPC tells of a call."""

    peer: dict[str, list[bytes]] = field(default_factory=dict)
    metadata: tuple[tuple[str, Any], ...] = ()

    def auth_context(self) -> dict[str, list[bytes]]:
        """What the connection proved."""
        return self.peer

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...]:
        """What the caller said."""
        return self.metadata


def call(uri: str = "", *headers: Any) -> tuple[Call, str]:
    """A call over mutual TLS, and the thumbprint of its certificate."""
    pem = Authority().leaf("client", uri=uri).certificate
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    names = [b"127.0.0.1", *([uri.encode()] if uri else [])]
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    peer = {"x509_pem_cert": [pem], "x509_subject_alternative_name": names}
    return Call(peer, tuple((FORWARDED, header) for header in headers)), thumbprint


def test_a_callers_own_certificate_counts() -> None:
    made, thumbprint = call()
    assert Certificates(Gateway()).presented(made) == thumbprint
    assert Certificates(Gateway(GATEWAY)).presented(made) == thumbprint
    assert Certificates(Gateway(GATEWAY)).presented(Call({"transport_security_type": [b"insecure"]})) == ""


@pytest.mark.parametrize("uri", ["", "spiffe://facetmesh.local/gateway2", "spiffe://evil/gateway"])
def test_whoever_else_speaks_for_others_speaks_for_himself(uri: str) -> None:
    made, thumbprint = call(uri, f"Hash={HASH}")
    assert Certificates(Gateway(GATEWAY)).presented(made) == thumbprint
    assert Certificates(Gateway()).presented(made) == thumbprint
    assert Certificates(Gateway(GATEWAY)).presented(Call({}, ((FORWARDED, f"Hash={HASH}"),))) == ""  # no mutual TLS


def test_the_gateway_speaks_for_its_callers() -> None:
    made, own = call(GATEWAY, f"Hash={HASH};URI=spiffe://x")
    assert Certificates(Gateway(GATEWAY)).presented(made) == THUMBPRINT
    assert Certificates(Gateway()).presented(made) == own
    # Its caller has none: not the gateway's own.
    assert Certificates(Gateway(GATEWAY)).presented(call(GATEWAY)[0]) == ""


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([f"Hash={HASH}"], THUMBPRINT),
        ([f'By=spiffe://a;Hash={HASH.upper()};Subject="CN=a,O=b";URI='], THUMBPRINT),
        ([f'By=x;Subject="CN=x;Hash={HASH}"'], ""),
        ([f'By=x;Subject="a\\";Hash={HASH}"'], ""),
        ([f"Hash={HASH},Hash={'0' * 64}"], ""),
        ([f"Hash={HASH};URI=a,By=b;Hash={'0' * 64}"], ""),
        ([f"Hash={HASH}", f"Hash={HASH}"], ""),
        ([f"Hash={HASH}0"], ""), ([f"Hash={HASH[:-1]}"], ""), (["Hash="], ""), ([""], ""), ([], ""), ([b"x"], ""),
        ([f"XHash={HASH}"], ""), ([f"Hash={HASH};" + "x" * 20_000], ""), ([f'Hash={HASH};Subject="'], ""),
    ],
)  # fmt: skip
def test_what_is_read_of_the_header(headers: list[Any], expected: str) -> None:
    assert forwarded(headers) == expected


@given(st.text(max_size=300))
def test_any_header_has_an_answer(text: str) -> None:
    assert forwarded([text]) in ("", THUMBPRINT) or "Hash=" in text
