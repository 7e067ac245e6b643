"""Key-encryption keys: they wrap the tenants' data keys, and are rotated without a pause."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from facetmesh.kit.errors import FailedPrecondition, Internal

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY_BYTES = 32
NONCE_BYTES = 12
_ID_CONTEXT = b"facetmesh-kek-id\n"


def seal(key: AESGCM, plaintext: bytes, aad: bytes) -> bytes:
    """A nonce and AES-256-GCM's output."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + key.encrypt(nonce, plaintext, aad)


def unseal(key: AESGCM, sealed: bytes, aad: bytes) -> bytes:
    """What was sealed.

    Raises:
        Internal: DATA_CORRUPT: it was changed, or was sealed by another key or for another place.
    """
    try:
        return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
    except (InvalidTag, ValueError):
        raise Internal("Stored data was changed or belongs elsewhere.", reason="DATA_CORRUPT") from None


class Keks:
    """The key-encryption keys: the first wraps, all of them open.

    Args:
        keys: 32 bytes each; at least one.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a key-encryption key must have {KEY_BYTES} bytes")
        self._keys = {_id(key): AESGCM(key) for key in keys}
        self.current = _id(keys[0])
        """The id of the one that wraps."""

    @classmethod
    def parse(cls, text: str) -> Keks:
        """Those in a secret's text: base64, the one that wraps first, the others after it, with white space between.

        Raises:
            FailedPrecondition: SECRET_INVALID.
        """
        try:
            return cls([base64.b64decode(word, validate=True) for word in text.split()])
        except (ValueError, binascii.Error):
            raise FailedPrecondition(
                "The secret data-kek is not one or more keys of 32 bytes in base64.", reason="SECRET_INVALID"
            ) from None

    @property
    def ids(self) -> list[str]:
        """All ids, that of the one that wraps first."""
        return list(self._keys)

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """A data key, wrapped by the first."""
        return seal(self._keys[self.current], key, aad)

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """A data key that was wrapped.

        Raises:
            Internal: KEK_MISSING: by one that is not among these. DATA_CORRUPT: it was changed.
        """
        kek = self._keys.get(kek_id)
        if kek is None:
            raise Internal("A data key is wrapped by a key that is not in the secret data-kek.", reason="KEK_MISSING")
        return unseal(kek, wrapped, aad)


def _id(key: bytes) -> str:
    return hashlib.sha256(_ID_CONTEXT + key).hexdigest()[:16]
