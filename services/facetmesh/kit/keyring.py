"""Encryption at rest, a key for each tenant.

A tenant's data key is random, wrapped by the key-encryption key (KEK) from the
secret store, and kept in Dapr state. Destroying the wrapped key makes all that
was encrypted under it unreadable, wherever copies of it lie (crypto-shredding).

Format: one version byte, a 12-byte nonce, AES-256-GCM's output. The tenant is
always part of the authenticated data, so that one tenant's ciphertext cannot be
passed off as another's.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from facetmesh.kit.errors import Aborted, Internal, NotFound

if TYPE_CHECKING:
    from facetmesh.kit.index import _Entry

_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class _State(Protocol):
    async def get(self, key: str) -> _Entry | None: ...
    async def put(self, key: str, value: bytes, *, create: bool = False) -> None: ...
    async def delete(self, key: str) -> None: ...


def _seal(key: AESGCM, plaintext: bytes, aad: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return _VERSION + nonce + key.encrypt(nonce, plaintext, aad)


def _open(key: AESGCM, sealed: bytes, aad: bytes) -> bytes:
    if sealed[:1] != _VERSION:
        raise Internal("Stored data has an unknown format.", reason="DATA_CORRUPT")
    try:
        return key.decrypt(sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :], aad)
    except InvalidTag:
        raise Internal("Stored data was changed or belongs elsewhere.", reason="DATA_CORRUPT") from None


class Keyring:
    """The tenants' data keys.

    Args:
        state: Where the wrapped keys are kept.
        kek: The 32-byte key that wraps them.
    """

    def __init__(self, state: _State, kek: bytes) -> None:
        if len(kek) != _KEY_BYTES:
            raise ValueError(f"the key-encryption key must have {_KEY_BYTES} bytes, not {len(kek)}")
        self._state = state
        self._kek = AESGCM(kek)
        self._keys: dict[str, AESGCM] = {}

    async def encrypt(self, tenant: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """The ciphertext of plaintext, bound to tenant and aad. Makes the tenant's key on first use."""
        return _seal(await self._key(tenant, create=True), plaintext, _bound(tenant, aad))

    async def decrypt(self, tenant: str, sealed: bytes, aad: bytes = b"") -> bytes:
        """The plaintext of sealed.

        Raises:
            NotFound: The tenant's key was destroyed, and with it what it encrypted.
            Internal: The ciphertext was changed, or is another tenant's or another aad's.
        """
        return _open(await self._key(tenant, create=False), sealed, _bound(tenant, aad))

    async def destroy(self, tenant: str) -> None:
        """Destroys a tenant's key. What it encrypted can never be read again."""
        await self._state.delete(_name(tenant))
        self._keys.pop(tenant, None)

    async def _key(self, tenant: str, *, create: bool) -> AESGCM:
        if (key := self._keys.get(tenant)) is not None:
            return key
        name = _name(tenant)
        entry = await self._state.get(name)
        if entry is None and create:
            wrapped = _seal(self._kek, AESGCM.generate_key(bit_length=8 * _KEY_BYTES), _bound(tenant, b"data-key"))
            with contextlib.suppress(Aborted):  # another replica was first: its key is the one
                await self._state.put(name, wrapped, create=True)
            entry = await self._state.get(name)
        if entry is None:
            raise NotFound("The data is gone: its key was destroyed.", reason="DATA_DESTROYED")
        key = AESGCM(_open(self._kek, entry.value, _bound(tenant, b"data-key")))
        self._keys[tenant] = key
        return key


def _name(tenant: str) -> str:
    return f"data-keys/{tenant}"


def _bound(tenant: str, aad: bytes) -> bytes:
    return tenant.encode() + b"\x00" + aad
