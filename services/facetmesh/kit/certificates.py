"""Which client certificate stands behind a call, for tokens that are bound to one (RFC 8705)."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from facetmesh.kit.gateways import Gateway

FORWARDED = "x-forwarded-client-cert"
"""The header in which Envoy names the certificate of whom it speaks for."""
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_HASH = re.compile(r"(?:^|;)Hash=([0-9a-fA-F]{64})(?:;|$)")
_LONGEST_HEADER = 16_384


class Certificates:
    """Finds the certificate of who calls.

    Args:
        gateway: What it says of its callers' certificates is believed.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def presented(self, context: Any) -> str:
        """The SHA-256 thumbprint of the caller's certificate in base64url, as `x5t#S256` has it; "" for none.

        Args:
            context: The call, as gRPC gives it to servicers.
        """
        if self._gateway.speaks(context):
            return forwarded(value for key, value in context.invocation_metadata() or () if key == FORWARDED)
        certificates = list(context.auth_context().get("x509_pem_cert", ()))
        return _thumbprint(certificates[0]) if len(certificates) == 1 else ""


def forwarded(headers: Iterable[Any]) -> str:
    """The thumbprint in Envoy's header; "" where there is none, or more than one.

    A gateway that is set up to replace the header (SANITIZE_SET) sends one element. More of them may have
    been brought by the caller.
    """
    found = list(headers)
    if len(found) != 1 or not isinstance(found[0], str) or len(found[0]) > _LONGEST_HEADER:
        return ""
    element = _QUOTED.sub("", found[0])
    match = _HASH.search(element)
    if match is None or "," in element or '"' in element:
        return ""
    return _encoded(bytes.fromhex(match[1]))


@lru_cache(maxsize=1024)
def _thumbprint(pem: bytes) -> str:
    return _encoded(hashlib.sha256(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)).digest())


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
