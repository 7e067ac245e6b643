"""Consents in Dapr state, encrypted under their tenant's key.

    tenants/{tenant}/consents/{consent}    a consent
    tenants/{tenant}/consents/index/…      hints for lists
"""  # noqa: D208 - a table

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.fusion.consents import Consent, SourceFace, Terms
from facetmesh.kit.errors import Aborted
from facetmesh.kit.index import Index

if TYPE_CHECKING:
    from facetmesh.kit.dapr import State

_BUCKETS = 16


class Cipher(Protocol):
    """The tenants' keys: `kit.keyring.Keyring`."""

    async def encrypt(self, tenant: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """The ciphertext, bound to tenant and aad."""
        ...

    async def decrypt(self, tenant: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """The plaintext."""
        ...


class DaprConsentStore:
    """The store of consents.

    Args:
        state: Dapr state of the app fusion.
        cipher: The tenants' keys.
    """

    def __init__(self, state: State, cipher: Cipher) -> None:
        self._state = state
        self._cipher = cipher

    async def get(self, tenant_id: str, consent_id: str) -> Consent | None:
        """The consent; None when there is none."""
        key = _key(tenant_id, consent_id)
        if (entry := await self._state.get(key)) is None:
            return None
        fields: dict[str, Any] = json.loads(await self._cipher.decrypt(tenant_id, entry.value, key.encode()))
        terms = fields.pop("terms")
        terms["faces"] = tuple(SourceFace(**face) for face in terms["faces"])
        return Consent(**fields, terms=Terms(**terms), etag=entry.etag)

    async def create(self, consent: Consent) -> bool:
        """Stores a new consent; False when there is one with its id."""
        await self._index(consent.tenant_id).add(consent.id)
        try:
            await self._state.put(_key(consent.tenant_id, consent.id), await self._sealed(consent), create=True)
        except Aborted:
            return False
        return True

    async def save(self, consent: Consent) -> None:
        """Stores a consent in place of the version that was read; raises Aborted when that has changed."""
        key = _key(consent.tenant_id, consent.id)
        await self._state.put(key, await self._sealed(consent), etag=consent.etag)

    async def ids(self, tenant_id: str) -> list[str]:
        """The ids of a tenant's consents, sorted; some may have no record."""
        return await self._index(tenant_id).ids()

    async def delete_all(self, tenant_id: str) -> None:
        """Deletes a tenant's consents, and their index last."""
        for consent_id in await self.ids(tenant_id):
            await self._state.delete(_key(tenant_id, consent_id))
        await self._index(tenant_id).clear()

    async def _sealed(self, consent: Consent) -> bytes:
        fields = asdict(consent)
        del fields["etag"]
        key = _key(consent.tenant_id, consent.id)
        return await self._cipher.encrypt(consent.tenant_id, json.dumps(fields).encode(), key.encode())

    def _index(self, tenant_id: str) -> Index:
        return Index(self._state, f"tenants/{tenant_id}/consents", buckets=_BUCKETS)


def _key(tenant_id: str, consent_id: str) -> str:
    return f"tenants/{tenant_id}/consents/{consent_id}"
