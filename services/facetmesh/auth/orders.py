"""Orders to the other services about tenants' data, each kept until every one of them has confirmed it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import ResourceExhausted, Unavailable
from facetmesh.kit.orders import OrderKind, TenantOrder
from facetmesh.kit.updates import update

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST = 1000
"""Orders at a time. They are kept in one value."""


@dataclass(frozen=True, slots=True)
class Given:
    """An order, and who has not confirmed it."""

    order: TenantOrder
    pending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OrderBook:
    """All orders that are not forgotten."""

    given: tuple[Given, ...] = ()
    etag: str = ""


class OrderStore(Protocol):
    """Where the book is kept."""

    async def orders(self) -> OrderBook:
        """The book."""
        ...

    async def save_orders(self, book: OrderBook) -> None:
        """Stores the book in place of the one that was read.

        Raises:
            Aborted: It was changed since.
        """
        ...


class Orders:
    """Gives orders and takes confirmations.

    Args:
        store: Where they are kept.
        services: Who must carry each out.
        clock: Seconds since the epoch.
    """

    def __init__(self, store: OrderStore, services: Sequence[str], clock: Callable[[], float]) -> None:
        self._store = store
        self._services = tuple(services)
        self._clock = clock

    async def give(self, tenant_id: str, kind: OrderKind) -> TenantOrder:
        """A new order, which takes the place of an older one of its kind.

        Raises:
            ResourceExhausted: ORDERS_PENDING: too many wait for confirmation.
            Aborted: Too many change them at once.
        """
        order = TenantOrder(tenant_id, kind, round(self._clock(), 6))  # as fine as it is sent, to be known again

        def give(given: tuple[Given, ...]) -> tuple[Given, ...]:
            if len(given) >= _MOST:
                raise ResourceExhausted(
                    "Too many orders to the services wait for confirmation: see that all of them run.",
                    reason="ORDERS_PENDING", retry_after_s=60,
                )
            others = (one for one in given if (one.order.tenant_id, one.order.kind) != (tenant_id, kind))
            return *others, Given(order, self._services)

        await self._change(give)
        return order

    async def pending(self, service: str) -> list[TenantOrder]:
        """What a service has not confirmed; nothing while the store does not answer."""
        try:
            book = await self._store.orders()
        except Unavailable:
            return []  # it is asked again and again
        return [one.order for one in book.given if service in one.pending]

    async def find(self, tenant_id: str, kind: OrderKind) -> Given | None:
        """The order; None when it was not given, or is forgotten."""
        given = (await self._store.orders()).given
        return next((one for one in given if (one.order.tenant_id, one.order.kind) == (tenant_id, kind)), None)

    async def confirm(self, service: str, order: TenantOrder) -> None:
        """Takes a confirmation. One of an older order, or a repeat, changes nothing.

        A new key is nobody's business once all have it; that all have purged a tenant is kept until `forget`.
        """
        def confirm(given: tuple[Given, ...]) -> tuple[Given, ...]:
            left = [
                replace(one, pending=tuple(name for name in one.pending if name != service))
                if one.order == order else one
                for one in given
            ]  # fmt: skip
            return tuple(one for one in left if one.pending or one.order.kind is not OrderKind.ROTATE_KEY)

        await self._change(confirm)

    async def forget(self, tenant_id: str) -> None:
        """Forgets all orders about a tenant."""
        await self._change(lambda given: tuple(one for one in given if one.order.tenant_id != tenant_id))

    async def _change(self, change: Callable[[tuple[Given, ...]], tuple[Given, ...]]) -> None:
        await update(
            self._store.orders, lambda book: replace(book, given=change(book.given)), self._store.save_orders
        )
