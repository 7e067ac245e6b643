"""What every replica of every service asks auth for again and again: parts of limits, profiles and policies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from facetmesh.auth.ledger import Holding

if TYPE_CHECKING:
    from facetmesh.auth.budgets import Budgets
    from facetmesh.auth.policies import PolicyBook
    from facetmesh.kit.budgets import Lease, Report


class Leasing:
    """Leases. It is a `kit.leases.BudgetSource`.

    Args:
        budgets: The parts of limits, with the profiles.
        policies: The policies.
    """

    def __init__(self, budgets: Budgets, policies: PolicyBook) -> None:
        self._budgets = budgets
        self._policies = policies

    async def lease(self, report: Report) -> Lease:
        """What a replica may give out from now on, and the policies that are new to it.

        Raises:
            Unavailable: The store does not answer.
            Aborted: Too many report at once.
        """
        changes, more = await self._policies.changes(report.policies_after)
        return replace(await self._budgets.lease(report), policies=changes, more_policies=more)

    async def hold(self, tenant: str, service: str, stored_bytes: int, models: int) -> None:
        """Notes what a service keeps for a tenant, in all. Raises as `Budgets.hold` does."""
        await self._budgets.hold(tenant.rpartition("/")[2], service, Holding(stored_bytes, models))
