"""Tenants, keys and revocations in Dapr state.

    tenants/{tenant}                     a tenant
    tenants/{tenant}/keys/{key}          a key's hash and what it may do
    tenants/index/…, …/keys/index/…      hints for lists
    revocations                          whose tokens no longer count
    orders                               what other services have still to do about tenants
    deleted/index/…                      hints for the purge
"""  # noqa: D208 - a table

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from facetmesh.auth.keys import Key
from facetmesh.auth.orders import Given, OrderBook
from facetmesh.auth.plans import Limits
from facetmesh.auth.revocations import Book
from facetmesh.auth.tenants import Tenant
from facetmesh.kit.errors import Aborted
from facetmesh.kit.index import Index
from facetmesh.kit.orders import OrderKind, TenantOrder
from facetmesh.kit.revocations import Revocation

if TYPE_CHECKING:
    from facetmesh.kit.dapr import Entry, State

_TENANT_BUCKETS = 16
_REVOCATIONS = "revocations"
_ORDERS = "orders"


class DaprStore:
    """The store of auth.

    Args:
        state: Dapr state of the app auth.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._tenants = Index(state, "tenants", buckets=_TENANT_BUCKETS)
        self._deleted = Index(state, "deleted", buckets=_TENANT_BUCKETS)

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant; None when there is none."""
        entry = await self._state.get(f"tenants/{tenant_id}")
        return None if entry is None else Tenant(**_fields(entry))

    async def create_tenant(self, tenant: Tenant) -> bool:
        """Stores a new tenant; False when there is one with its id."""
        await self._tenants.add(tenant.id)
        try:
            await self._state.put(f"tenants/{tenant.id}", _text(tenant), create=True)
        except Aborted:
            return False
        return True

    async def save_tenant(self, tenant: Tenant) -> None:
        """Stores a tenant in place of the one that was read."""
        await self._state.put(f"tenants/{tenant.id}", _text(tenant), etag=tenant.etag)

    async def tenant_ids(self) -> list[str]:
        """All ids, sorted."""
        return await self._tenants.ids()

    async def note_deleted(self, tenant_id: str) -> None:
        """Notes that a tenant is about to be deleted, and will be to purge."""
        await self._deleted.add(tenant_id)

    async def deleted_ids(self) -> list[str]:
        """The ids of tenants that may be deleted and not yet purged."""
        return await self._deleted.ids()

    async def forget_deleted(self, tenant_id: str) -> None:
        """Notes that a tenant is purged."""
        await self._deleted.remove(tenant_id)

    async def key(self, tenant_id: str, key_id: str) -> Key | None:
        """The key; None when there is none."""
        entry = await self._state.get(_key(tenant_id, key_id))
        if entry is None:
            return None
        return Key(**_fields(entry))

    async def save_key(self, key: Key) -> None:
        """Stores a key: a new one when its etag is empty, else in place of the one that was read."""
        if not key.etag:
            await self._index(key.tenant_id).add(key.id)
        await self._state.put(_key(key.tenant_id, key.id), _text(key), etag=key.etag or None, create=not key.etag)

    async def key_ids(self, tenant_id: str) -> list[str]:
        """The tenant's key ids, sorted."""
        return await self._index(tenant_id).ids()

    async def delete_keys(self, tenant_id: str) -> None:
        """Deletes what is kept of a tenant's keys, and their index."""
        index = self._index(tenant_id)
        for key_id in await index.ids():
            await self._state.delete(_key(tenant_id, key_id))
        await index.clear()

    async def orders(self) -> OrderBook:
        """The orders that are not forgotten."""
        entry = await self._state.get(_ORDERS)
        if entry is None:
            return OrderBook()
        fields = _fields(entry)
        given = (
            Given(TenantOrder(one["tenant_id"], OrderKind(one["kind"]), one["time_s"]), tuple(one["pending"]))
            for one in fields["given"]
        )  # fmt: skip
        return OrderBook(tuple(given), fields["etag"])

    async def save_orders(self, book: OrderBook) -> None:
        """Stores the orders in place of those that were read."""
        given = [{**asdict(one.order), "pending": one.pending} for one in book.given]
        value = json.dumps({"given": given}).encode()
        await self._state.put(_ORDERS, value, etag=book.etag or None, create=not book.etag)

    async def revocations(self) -> Book:
        """What is revoked."""
        entry = await self._state.get(_REVOCATIONS)
        if entry is None:
            return Book()
        fields = _fields(entry)
        return Book(fields["sequence"], tuple(Revocation(**one) for one in fields["revocations"]), fields["etag"])

    async def save_revocations(self, book: Book) -> None:
        """Stores what is revoked in place of what was read."""
        await self._state.put(_REVOCATIONS, _text(book), etag=book.etag or None, create=not book.etag)

    def _index(self, tenant_id: str) -> Index:
        return Index(self._state, f"tenants/{tenant_id}/keys")


def _key(tenant_id: str, key_id: str) -> str:
    return f"tenants/{tenant_id}/keys/{key_id}"


def _text(record: Tenant | Key | Book) -> bytes:
    return json.dumps({name: value for name, value in asdict(record).items() if name != "etag"}).encode()


def _fields(entry: Entry) -> dict[str, Any]:
    """A record's fields as its dataclass takes them. What an older version did not write keeps its default."""
    fields = json.loads(entry.value)
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    limits = {"limits": Limits(**fields["limits"])} if "limits" in fields else {}
    return {**fields, **lists, **limits, "etag": entry.etag}
