"""What auth has every service do with what it keeps of a tenant.

An order is given until the service has confirmed it, with each message on the
stream of revocations: whatever is lost or killed in between, it is carried out,
perhaps more than once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.kit.keyring import Keyring

Purge: TypeAlias = Callable[[str], Awaitable[None]]
"""Deletes all that a service keeps of a tenant, given its id, whose data keys are destroyed already. Repeating it
does no harm."""
_log = logging.getLogger(__name__)


class OrderKind(StrEnum):
    """What is to be done."""

    PURGE = "purge"
    """Destroy the tenant's keys and all that is kept of it."""
    ROTATE_KEY = "rotate-key"
    """Encrypt with a new key from now on."""


@dataclass(frozen=True, slots=True)
class TenantOrder:
    """What is to be done about a tenant."""

    tenant_id: str
    kind: OrderKind
    time_s: float
    """When it was ordered, in seconds since the epoch."""


def carried_out(
    keyring: Keyring | None, purge: Purge | None
) -> Mapping[OrderKind, Callable[[TenantOrder], Awaitable[None]]]:
    """How a service carries orders out, by kind.

    Args:
        keyring: Its tenants' data keys; None where it has none.
        purge: What else it does to purge a tenant.
    """

    async def rotate(order: TenantOrder) -> None:
        if keyring is not None:
            await keyring.rotate(order.tenant_id, order.time_s)

    async def destroy(order: TenantOrder) -> None:
        if keyring is not None:
            await keyring.destroy(order.tenant_id)  # first: from then on nothing of it can be read, wherever it lies
        if purge is not None:
            await purge(order.tenant_id)

    return {OrderKind.ROTATE_KEY: rotate, OrderKind.PURGE: destroy}


class Obedience:
    """Carries orders out, each once at a time.

    Args:
        carry_out: How, by kind. Repeating it must do no harm.
        confirm: Tells auth that an order was carried out.
    """

    def __init__(
        self,
        carry_out: Mapping[OrderKind, Callable[[TenantOrder], Awaitable[None]]],
        confirm: Callable[[TenantOrder], Awaitable[None]],
    ) -> None:
        self._carry_out = carry_out
        self._confirm = confirm
        self._under_way: dict[TenantOrder, asyncio.Task[None]] = {}

    def hear(self, orders: Sequence[TenantOrder]) -> None:
        """Begins what is not under way. What fails is begun again when it is heard again."""
        for order in orders:
            if order not in self._under_way:
                task = asyncio.get_running_loop().create_task(self._obey(order))
                self._under_way[order] = task
                task.add_done_callback(partial(self._ended, order))

    async def close(self) -> None:
        """Leaves what is under way: it is ordered again after the next start."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, order: TenantOrder, _: asyncio.Task[None]) -> None:
        self._under_way.pop(order, None)

    async def _obey(self, order: TenantOrder) -> None:
        said = {"tenant": order.tenant_id, "order": order.kind.value}
        try:
            await self._carry_out[order.kind](order)
            await self._confirm(order)
        except FacetmeshError as error:
            _log.warning("an order was not carried out yet", extra={**said, "reason": error.reason})
        except Exception:  # noqa: BLE001 - whatever it is, the order comes again
            _log.exception("an order was not carried out yet", extra=said)
        else:
            _log.info("an order was carried out", extra=said)
