"""What a tenant asks of the models that are uploaded for it: who must have signed them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from facetmesh.kit.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTEXT = b"facetmesh-model-v1\n"
"""Stands before the SHA-256 in what is signed, so that a signature made for something else does not hold here."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a tenant asks of uploads."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """Ed25519 public keys by id, in base64."""
    required: bool = False
    """Whether an upload without a signature by one of them is refused."""
    etag: str = ""

    def signer(self, sha256: str, signature: bytes) -> str:
        """The id of the key that signed a file; empty when none did and none need have.

        Args:
            sha256: Of the file, in hex.
            signature: Over CONTEXT and the SHA-256's 32 bytes; empty for none.

        Raises:
            FailedPrecondition: SIGNATURE_REQUIRED: there is none.
            InvalidArgument: SIGNATURE_INVALID: it is by none of the keys.
        """
        if not signature:
            if self.required:
                raise FailedPrecondition(
                    "The tenant's policy asks for models that are signed.", reason="SIGNATURE_REQUIRED"
                )
            return ""
        message = CONTEXT + bytes.fromhex(sha256)
        for key_id, public_key in self.keys.items():
            try:
                Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key)).verify(signature, message)
            except InvalidSignature:
                continue
            return key_id
        raise InvalidArgument(
            "The signature is by none of the keys of the tenant's policy.", reason="SIGNATURE_INVALID"
        )
