"""The tenants' keys for links in Dapr state, encrypted under the tenant's data key.

    tenants/{tenant}/link-key    32 random bytes
"""  # noqa: D208 - a table

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from facetmesh.kit.errors import Aborted

if TYPE_CHECKING:
    from facetmesh.fusion.consent_store import Cipher
    from facetmesh.kit.dapr import State

_KEY_BYTES = 32


class DaprLinkKeys:
    """The store of link keys.

    Args:
        state: Dapr state of the app fusion.
        cipher: The tenants' data keys.
    """

    def __init__(self, state: State, cipher: Cipher) -> None:
        self._state = state
        self._cipher = cipher

    async def get(self, tenant_id: str) -> bytes | None:
        """The tenant's key; None where it has none. Raises NotFound where it was destroyed."""
        name = _name(tenant_id)
        if (entry := await self._state.get(name)) is None:
            return None
        return await self._cipher.decrypt(tenant_id, entry.value, name.encode())

    async def make(self, tenant_id: str) -> bytes:
        """The tenant's key, made where it has none."""
        if (known := await self.get(tenant_id)) is not None:
            return known
        name, key = _name(tenant_id), secrets.token_bytes(_KEY_BYTES)
        try:
            await self._state.put(name, await self._cipher.encrypt(tenant_id, key, name.encode()), create=True)
        except Aborted:  # another replica was faster
            return await self.get(tenant_id) or key
        return key

    async def delete_all(self, tenant_id: str) -> None:
        """Deletes a tenant's key."""
        await self._state.delete(_name(tenant_id))


def _name(tenant_id: str) -> str:
    return f"tenants/{tenant_id}/link-key"
