"""What tenants use, for those who ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.auth.plans import Limits
from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from facetmesh.auth.budgets import Budgets
    from facetmesh.auth.ledger import Account
    from facetmesh.auth.usage import Usage, UsageHistory

_WEEK_S = 7 * 86_400
_LONGEST_S = 92 * 86_400


@dataclass(frozen=True, slots=True)
class Standing:
    """Limits, and what is used of them."""

    limits: Limits
    """0 where there is none."""
    used: Limits
    """Calls a second and in progress as they were wanted lately, images and compute today, bytes and models now."""


@dataclass(frozen=True, slots=True)
class Standings:
    """A tenant's standing, and that of its keys with limits of their own which were used today."""

    tenant: Standing
    keys: Mapping[str, Standing]
    """By tenants/{tenant}/keys/{key}."""


class Metering:
    """Tells what tenants use.

    Args:
        budgets: What is used now.
        history: What was used before.
        clock: Seconds since the epoch.
    """

    def __init__(self, budgets: Budgets, history: UsageHistory, clock: Callable[[], float]) -> None:
        self._budgets = budgets
        self._history = history
        self._clock = clock

    async def now(self, tenant_id: str) -> Standings:
        """A tenant's limits, and what is used of them.

        Raises:
            NotFound: There is no such tenant.
        """
        limits, ledger = await self._budgets.today(tenant_id)
        name, now = f"tenants/{tenant_id}", self._clock()
        standings = {
            account: Standing(limits[account], _used(found, now))
            for account, found in sorted(ledger.accounts.items()) if account in limits
        }  # fmt: skip
        held = ledger.holdings.values()
        used = standings[name].used if name in standings else Limits()
        own = Standing(
            limits[name],
            Limits(
                used.requests_per_s, used.concurrency, used.images_per_day, used.compute_seconds_per_day,
                sum(one.stored_bytes for one in held), sum(one.models for one in held),
            ),
        )  # fmt: skip
        standings.pop(name, None)
        return Standings(own, standings)

    async def between(
        self, tenant_id: str, start_s: float | None, end_s: float | None, *, daily: bool
    ) -> list[Usage]:
        """Usage from a time to another, by hour or day, the oldest first, within a period by model.

        Args:
            tenant_id: Whose.
            start_s: From the period of this time on, in seconds since the epoch; a week before the end when None.
            end_s: Until before this time; until now when None.
            daily: By day.

        Raises:
            NotFound: There is no such tenant.
            InvalidArgument: PERIOD_INVALID; more than 92 days, or none.
        """
        end_s = self._clock() + 1 if end_s is None else end_s
        start_s = end_s - _WEEK_S if start_s is None else start_s
        if not 0 <= start_s < end_s or end_s - start_s > _LONGEST_S:
            raise InvalidArgument("start_time: from 0 to 92 days before end_time.", reason="PERIOD_INVALID")
        current = await self._budgets.work(tenant_id)
        return await self._history.between(tenant_id, start_s, end_s, current, daily=daily)


def _used(account: Account, now: float) -> Limits:
    stakes = [stake.wanted for stake in account.stakes.values() if stake.until_s > now]
    return Limits(
        round(sum(one.requests_per_s for one in stakes), 1), int(sum(one.concurrency for one in stakes)),
        int(account.images), round(account.compute_s, 3),
    )  # fmt: skip

