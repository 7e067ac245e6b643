"""A new customer in one step: a tenant and its first key."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facetmesh.auth.keys import Key, Keys, KeySpec
    from facetmesh.auth.tenants import Tenant, Tenants, TenantSpec

FIRST_KEY_ROLES = ("tenant-admin", "caller", "auditor")
"""What a first key may do where nothing is said: its holder can make others that may do less."""


class Onboarding:
    """Makes tenants with their first keys.

    Args:
        tenants: The tenants.
        keys: Their keys.
    """

    def __init__(self, tenants: Tenants, keys: Keys) -> None:
        self._tenants = tenants
        self._keys = keys

    async def onboard(
        self, tenant_id: str, tenant: TenantSpec, key: KeySpec, request_id: str
    ) -> tuple[Tenant, Key, str]:
        """A new tenant, its first key, and the key's text, which nobody can read again.

        What a call that was cut short has made is taken up by the next one of the same request. That gives the
        key a new text, because nobody knows whether the one before was ever read; once the key was used, it was,
        and the text is "".

        Raises:
            InvalidArgument: The tenant's id is reserved, there is no such plan, or there can be no such key.
            AlreadyExists: The id is taken by another request.
            NotFound: The tenant was deleted meanwhile.
            Aborted: The key is being changed by others.
        """
        self._keys.check(key)  # before anything is made
        made = await self._tenants.create(tenant_id, tenant, request_id)
        # The same key for the same request: its id follows from the request's.
        key_id = hashlib.sha256(request_id.encode()).hexdigest()[:16]
        return made, *await self._keys.first(tenant_id, key_id, key)
